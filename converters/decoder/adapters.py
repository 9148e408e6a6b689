"""Low-rank adapters (LoRA, arXiv:2106.09685) in PEFT's files, as inputs of the adapted graph.

PEFT keeps ``lora_A`` [rank, in] and ``lora_B`` [out, rank] beside each adapted matrix of
the checkpoint. The graph multiplies rows, and some of its nodes stack several matrices
(:mod:`converters.decoder.names`): their adapters stand side by side in one ``a``, and
block by block in one ``b``, with the scale in it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters.decoder import families
from converters.decoder.architecture import Architecture
from converters.decoder.checkpoint import Checkpoint, read_json
from converters.decoder.config import Config
from converters.decoder.names import nodes, parts, shapes
from converters.decoder.stored import Stored
from edge_sdk.errors import SourceError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_TENSOR = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
# Fields that may be set without changing what is computed from the tensors.
_HARMLESS = {
    "auto_mapping", "ensure_weight_tying", "eva_config", "exclude_modules", "fan_in_fan_out",
    "inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform",
    "rank_pattern", "target_modules",
}  # fmt: skip
_SCALE = {"alpha_pattern", "use_rslora"}
# Other ways to begin a training take something off the base model's weights.
_INITIAL = {"gaussian", "eva", "orthogonal"}

Array = NDArray[np.float32]


@dataclass(frozen=True)
class LowRank:
    """An adapter, as a graph takes it.

    Attributes:
        name: What requests call it.
        arrays: Graph input -> array: ``lora.{node}.a`` [in, rank], ``lora.{node}.b`` [rank, out].
    """

    name: str
    arrays: Mapping[str, Array]


@dataclass(frozen=True)
class _Pair:
    """What is added to one matrix of the checkpoint: ``down @ up``, transposed."""

    down: Array
    up: Array


@dataclass(frozen=True)
class _Slot:
    """One of the matrices that a node stacks.

    Attributes:
        module: The checkpoint's module that holds it, perhaps among others.
        rows: Its rows there.
        shape: Its own shape, [out, in].
    """

    module: str
    rows: slice | NDArray[np.intp]
    shape: tuple[int, ...]


def read_adapter(name: str, folder: Path, architecture: Architecture) -> LowRank:
    """Reads an adapter that PEFT has saved.

    Args:
        name: What requests call it.
        folder: Where ``adapter_config.json`` and ``adapter_model.safetensors`` are.
        architecture: The base model.

    Raises:
        SourceError: The adapter uses something that is not supported, is damaged, or is
            for another base model.
    """
    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            raise SourceError(
                f"holds no {file}",
                where=str(folder),
                remedy="give a folder that PEFT's save_pretrained() has written, as safetensors",
            )
    config = Config(read_json(folder / CONFIG), str(folder / CONFIG))
    _check_config(config)
    slots = _slots(architecture)
    pairs = _read_pairs(Checkpoint(folder / WEIGHTS), config, _matrices(slots))
    arrays: dict[str, Array] = {}
    for node, stacked in slots.items():
        arrays |= _arrays(node, stacked, pairs)
    return LowRank(name, arrays)


def _check_config(config: Config) -> None:
    """Refuses what would be computed otherwise than with the two matrices alone.

    Numbers and texts only say more about what another field switches on.
    """
    config.choice("peft_type", ("LORA",))
    config.choice("bias", ("none",), "none")
    begun = config.values.get("init_lora_weights", True)
    if isinstance(begun, str) and begun not in _INITIAL:
        raise config.wrong(
            "init_lora_weights",
            "is not supported",
            "save the adapter with path_initial_model_for_weight_conversion",
        )
    for field, value in config.values.items():
        switched = value is True or (isinstance(value, dict | list) and value)
        if switched and field not in _HARMLESS | _SCALE:
            raise config.wrong(
                field,
                "is not supported",
                "train a plain LoRA adapter, or merge it into a model of its own",
            )


def _scale(config: Config, module: str, rank: int) -> float:
    """What ``B @ A`` is multiplied by."""
    alpha = config.number("lora_alpha")
    pattern = config.part("alpha_pattern")
    for key in pattern.values:
        try:
            found = re.match(rf"(.*\.)?({key})$", module)
        except re.error as error:
            raise pattern.wrong(key, f"is no regular expression: {error}") from None
        if found:
            alpha = pattern.number(key)
            break
    return alpha / (math.sqrt(rank) if config.flag("use_rslora", False) else rank)


def _slots(architecture: Architecture) -> dict[str, list[_Slot]]:
    """Node -> the matrices that it stacks, in order."""
    places, sizes = families.places(architecture), shapes(architecture)

    def slot(part: str) -> _Slot:
        place = places[part]
        rows = slice(None) if place.rows is None else place.rows
        shape = sizes.get(part, sizes["embed"])  # a tied head is the table
        return _Slot(place.tensor.removesuffix(".weight"), rows, shape)

    return {node: [slot(part) for part in parts(node)] for node in nodes(architecture)}


def _matrices(slots: Mapping[str, Sequence[_Slot]]) -> dict[str, tuple[int, int]]:
    """Checkpoint module -> shape [out, in], of everything that can be adapted."""
    found: dict[str, tuple[int, int]] = {}
    for slot in chain.from_iterable(slots.values()):
        above, _ = found.get(slot.module, (0, 0))
        found[slot.module] = above + slot.shape[0], slot.shape[1]
    return found


def _read_pairs(
    checkpoint: Checkpoint, config: Config, matrices: Mapping[str, tuple[int, int]]
) -> dict[str, _Pair]:
    """Checkpoint module -> its adapter."""
    where = str(checkpoint.files[0])
    names: dict[str, dict[str, str]] = {}
    for tensor in checkpoint.tensors:
        match = _TENSOR.fullmatch(tensor)
        if match is None or match["module"] not in matrices:
            kinds = sorted({module.rpartition(".")[2] for module in matrices})
            raise SourceError(
                f"tensor {tensor!r} belongs to no matrix of this model that can be adapted",
                where=where,
                remedy=f"give an adapter of this very model, over {', '.join(kinds)}; "
                "save it with save_embedding_layers=False",
            )
        names.setdefault(match["module"], {})[match["side"]] = tensor
    if not names:
        raise SourceError("holds no tensor", where=where, remedy="train and save it again")
    return {
        module: _read_pair(checkpoint, config, module, sides, matrices[module])
        for module, sides in names.items()
    }


def _read_pair(
    checkpoint: Checkpoint,
    config: Config,
    module: str,
    sides: Mapping[str, str],
    shape: tuple[int, int],
) -> _Pair:
    where = str(checkpoint.files[0])
    for side in "AB":
        if side not in sides:
            raise SourceError(
                f"lacks lora_{side} of {module}", where=where, remedy="save the adapter again"
            )
    a, b = (checkpoint.tensors[sides[side]] for side in "AB")
    rank = a.shape[0] if a.shape else 0
    _check_shape(sides["A"], a, (rank, shape[1]))
    _check_shape(sides["B"], b, (shape[0], rank))
    down, up = (checkpoint.read(sides[side]).T for side in "AB")
    up = up * np.float32(_scale(config, module, rank))
    if not (np.isfinite(down).all() and np.isfinite(up).all()):
        raise SourceError(
            f"the adapter of {module} is not finite",
            where=where,
            remedy="its training diverged: take an earlier checkpoint",
        )
    return _Pair(down, up)


def _check_shape(tensor: str, stored: Stored, wanted: tuple[int, int]) -> None:
    if stored.shape != wanted or not min(wanted):
        raise SourceError(
            f"tensor {tensor!r} of shape {list(stored.shape)} does not fit the base model, "
            f"where it would be {list(wanted)}",
            where=str(stored.file),
            remedy="give an adapter that was trained on this very model",
        )


def _arrays(node: str, slots: Sequence[_Slot], pairs: Mapping[str, _Pair]) -> dict[str, Array]:
    """The two inputs of a node; none where nothing adapts it."""
    adapted = [m for m in dict.fromkeys(slot.module for slot in slots) if m in pairs]
    if not adapted:
        return {}
    return {
        f"lora.{node}.a": np.concatenate([pairs[module].down for module in adapted], axis=1),
        f"lora.{node}.b": np.concatenate([_across(slots, m, pairs[m].up) for m in adapted]),
    }


def _across(slots: Sequence[_Slot], module: str, up: Array) -> Array:
    """One module's part of a node's ``b``: zero for the matrices of other modules."""
    return np.concatenate(
        [
            up[:, slot.rows]
            if slot.module == module
            else np.zeros((len(up), slot.shape[0]), np.float32)
            for slot in slots
        ],
        axis=1,
    )
