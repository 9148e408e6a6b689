"""A source model, whatever file it came from, and how its reader is found."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

import onnx_ir as ir

from converters.decoder.source import DecoderSource
from device_profiles.schema import Kind
from edge_sdk.bundle.record import State, Step, TensorSpec
from edge_sdk.errors import SourceError
from edge_sdk.plugins import load_plugin

if TYPE_CHECKING:
    from converters.opaque.source import OpaqueSource
    from converters.seq2seq.source import Seq2SeqSource


@dataclass(frozen=True)
class Source:
    """A model as the passes see it, with what is known about it.

    Attributes:
        path: The graph file an engine can open as it is.
        name: Default name of the bundle.
        digest: ``sha256:…`` over all its files.
        size_bytes: Size of all its files.
        model: The graph; large tensors are mapped from the source's files.
        kind: Kind of network, which selects the profile's rules.
        task: What it does, for pre- and post-processing.
        inputs: Graph inputs without states.
        outputs: Graph outputs.
        states: Recurrences.
        tokenizer: ``tokenizer.json`` where the model has one.
        labels: Class names in order, where the model has them.
        preprocess: Steps before the graph (:mod:`edge_sdk.runtime.steps`); none asks
            packaging to guess them from the task and the tokenizer.
        postprocess: Steps after it; none asks packaging to guess them too.
        files: What the steps read, path in the variant -> file here.
        graph_bytes: Size of ``path`` and its weights, where that is not ``size_bytes`` because
            the graph was made of another file.
        original: The user's own file, where ``path`` was made of it and an engine opens the
            file as it is (``.tflite``): it is a candidate too.
        licence: Its licence, where known.
        tools: Versions of what made the graph, where something did.
    """

    path: Path
    name: str
    digest: str
    size_bytes: int
    model: ir.Model
    kind: Kind
    task: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    states: tuple[State, ...] = ()
    tokenizer: Path | None = None
    labels: tuple[str, ...] = ()
    preprocess: tuple[Step, ...] = ()
    postprocess: tuple[Step, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    graph_bytes: int | None = None
    original: Path | None = None
    licence: str | None = None
    tools: Mapping[str, str] = field(default_factory=dict)


AnySource: TypeAlias = "Source | DecoderSource | Seq2SeqSource | OpaqueSource"


class SourceReader(Protocol):
    """Reads one format of source models."""

    def accepts(self, path: Path) -> bool:
        """Whether ``path`` looks like this format (by name and first bytes)."""

    def read(
        self,
        path: Path,
        *,
        states: tuple[State, ...] | None,
        task: str | None,
        say: Callable[[str], None],
    ) -> AnySource:
        """Reads the model.

        Args:
            path: File or folder.
            states: Recurrences the user named; ``None`` asks the reader to find them.
            task: The task the user named; ``None`` asks the reader to find it.
            say: Told what happens, where reading takes long.

        Raises:
            SourceError: The model is damaged or uses something that is not supported.
        """


def quiet(message: str) -> None:
    """Says nothing: for callers who need no progress."""


def open_source(
    path: Path,
    *,
    states: tuple[State, ...] | None = None,
    task: str | None = None,
    say: Callable[[str], None] = quiet,
) -> AnySource:
    """Finds the reader that accepts ``path`` and reads it.

    Args:
        path: File or folder.
        states: Recurrences; found where ``None``.
        task: What it does; found where ``None``.
        say: Told what happens, where reading takes long.

    Raises:
        SourceError: The path does not exist, no reader accepts it, or reading failed.
    """
    if not path.exists():
        raise SourceError("no such file or folder", where=str(path))
    names = []
    for entry in entry_points(group="edge_sdk.sources"):
        names.append(entry.name)
        reader: SourceReader = load_plugin(entry, SourceError)()
        if reader.accepts(path):
            return reader.read(path, states=states, task=task, say=say)
    raise SourceError(
        "not a model format that an installed reader accepts",
        where=str(path),
        remedy=f"give a model of one of these formats: {', '.join(sorted(names))}",
    )


def bundle_name(text: str) -> str:
    """A text as a bundle's name, without the characters that those may not have."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip("._+-") or "model"


def digest_files(paths: Iterable[Path]) -> str:
    """One digest over the contents of several files, in the given order."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{total.hexdigest()}"
