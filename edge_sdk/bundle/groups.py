"""Which tensors share a blob: planning (pure) and streaming of weight groups.

A weight group is what one node reads: its quantized weight with scales and zero
points. A group from 32 KiB up is a blob of its own, so a fine-tuned layer costs
its own bytes. Smaller groups are packed with others of their kind in order; a pack
closes when it reaches 32 KiB, so a change stays inside one pack. Tensors of a page or
more start on a page, and can be mapped alone; smaller ones start on a cache line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_sdk.bundle.blobs import BlobStore
from edge_sdk.bundle.record import Blob
from edge_sdk.errors import BundleError

if TYPE_CHECKING:
    from typing_extensions import Buffer

OWN_BLOB = 32 * 1024
PAGE = 4096
CACHE_LINE = 64


@dataclass(frozen=True)
class Tensor:
    """A tensor to be stored: a unique name and its size in bytes."""

    name: str
    nbytes: int


@dataclass(frozen=True)
class Group:
    """The tensors that belong together, named after the node that reads them.

    Attributes:
        key: The name.
        tensors: In the node's order.
        kind: Operator of the node. Small groups share packs with their kind alone, so that
            graphs which differ in some operators share the packs of all others.
    """

    key: str
    tensors: tuple[Tensor, ...]
    kind: str = ""


@dataclass(frozen=True)
class Slot:
    """A tensor's place inside its pack, in bytes."""

    name: str
    offset: int
    length: int


@dataclass(frozen=True)
class Pack:
    """One blob to be: slots in order, gaps filled with zeros."""

    slots: tuple[Slot, ...]

    @property
    def size(self) -> int:
        """Size of the blob in bytes."""
        last = self.slots[-1]
        return last.offset + last.length


@dataclass(frozen=True)
class Placement:
    """Where a tensor was stored, as ONNX external data wants it."""

    blob: Blob
    offset: int
    length: int


def plan_groups(groups: Iterable[Group]) -> tuple[Pack, ...]:
    """Decides which blob each tensor goes to, and where in it.

    A tensor named by several groups goes with the first.

    Args:
        groups: Groups in the graph's order; the plan depends on nothing else.

    Raises:
        BundleError: One name comes with two sizes.
    """
    seen: dict[str, int] = {}
    packs: list[Pack] = []
    waiting: dict[str, list[Tensor]] = {}
    for group in groups:
        fresh = _fresh(group, seen)
        size = sum(tensor.nbytes for tensor in fresh)
        if size >= OWN_BLOB:
            packs.append(_lay_out(fresh))
            continue
        mates = waiting.setdefault(group.kind, [])
        mates += fresh
        if sum(tensor.nbytes for tensor in mates) >= OWN_BLOB:
            packs.append(_lay_out(waiting.pop(group.kind)))
    packs += [_lay_out(mates) for mates in waiting.values() if mates]
    return tuple(packs)


def write_groups(
    blobs: BlobStore, packs: Iterable[Pack], read: Callable[[str], Buffer]
) -> dict[str, Placement]:
    """Stores packs, holding one tensor at a time.

    Args:
        blobs: Where to.
        packs: From :func:`plan_groups`.
        read: Tensor name -> its bytes, C-contiguous, little-endian.

    Returns:
        Tensor name -> where it is.

    Raises:
        BundleError: A tensor's bytes are not as many as planned.
    """
    placed: dict[str, Placement] = {}
    for pack in packs:
        blob = blobs.put(_stream(pack, read))
        for slot in pack.slots:
            placed[slot.name] = Placement(blob, slot.offset, slot.length)
    return placed


def _fresh(group: Group, seen: dict[str, int]) -> list[Tensor]:
    """The group's tensors that no earlier group has; records them in ``seen``."""
    fresh = []
    for tensor in group.tensors:
        if tensor.name not in seen:
            seen[tensor.name] = tensor.nbytes
            fresh.append(tensor)
        elif seen[tensor.name] != tensor.nbytes:
            raise BundleError(
                f"tensor {tensor.name!r} has two sizes, {seen[tensor.name]} and {tensor.nbytes}",
                where=group.key,
            )
    return fresh


def _lay_out(tensors: Iterable[Tensor]) -> Pack:
    slots, end = [], 0
    for tensor in tensors:
        alignment = PAGE if tensor.nbytes >= PAGE else CACHE_LINE
        offset = -(-end // alignment) * alignment
        slots.append(Slot(tensor.name, offset, tensor.nbytes))
        end = offset + tensor.nbytes
    return Pack(tuple(slots))


def _stream(pack: Pack, read: Callable[[str], Buffer]) -> Iterator[Buffer]:
    end = 0
    for slot in pack.slots:
        yield bytes(slot.offset - end)
        data = read(slot.name)
        length = memoryview(data).nbytes
        if length != slot.length:
            raise BundleError(
                f"has {length} bytes instead of the {slot.length} planned", where=slot.name
            )
        yield data
        end = slot.offset + slot.length
