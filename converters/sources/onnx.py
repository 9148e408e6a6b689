"""ONNX files, with or without external data, as sources."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import google.protobuf.message
import onnx_ir as ir

from converters import describe
from converters.materialize import complaint
from converters.passes.base import each_graph
from converters.preprocessors import read_preprocessor
from converters.source import Source, bundle_name, digest_files, quiet
from edge_sdk.bundle.record import State, Step, TensorSpec
from edge_sdk.errors import SourceError
from edge_sdk.runtime.steps import to_step

EXPORT = "export it again with a current exporter"
# What the reader does not know, by its own words.
REMEDIES = {
    "Map types": "leave ZipMap out of it: skl2onnx.to_onnx(…, options={'zipmap': False})",
    "Sparse tensors": "store its weights dense",
}


class OnnxSource:
    """Reads ``.onnx`` files, and what lies beside them.

    That is ``tokenizer.json``, ``labels.json`` and ``preprocessor_config.json``.
    """

    def accepts(self, path: Path) -> bool:
        """Whether the file's name ends in ``.onnx``."""
        return path.is_file() and path.suffix.lower() == ".onnx"

    def read(
        self,
        path: Path,
        *,
        states: tuple[State, ...] | None,
        task: str | None,
        say: Callable[[str], None] = quiet,
    ) -> Source:
        """Reads the graph; large tensors stay in their files until they are used."""
        model, files = _load(path)
        return source_of(
            model,
            path,
            path,
            digest=digest_files(files),
            size_bytes=sum(file.stat().st_size for file in files),
            states=states,
            task=task,
        )


def source_of(
    model: ir.Model,
    graph: Path,
    origin: Path,
    *,
    digest: str,
    size_bytes: int,
    states: tuple[State, ...] | None,
    task: str | None,
) -> Source:
    """A source as its graph describes it, with what lies beside the user's file.

    Args:
        model: The graph.
        graph: The ONNX file that holds it.
        origin: The file that the user gave.
        digest: Of all files of the source.
        size_bytes: Of all files of the source.
        states: Recurrences the user named; ``None`` asks for them to be found.
        task: The task the user named; ``None`` asks for it to be found.

    Raises:
        SourceError: A named recurrence, or a file beside the model, does not fit.
    """
    found = describe.find_states(model)
    bound = found if states is None else describe.check_states(model, states)
    carried = {state.input for state in bound}
    outputs = describe.graph_outputs(model)
    tokenizer = origin.parent / "tokenizer.json"
    task = task or describe.task_of(model, outputs)
    scores = outputs[0].shape if task == "classification" else None
    classes = scores[-1] if scores else None
    inputs = tuple(s for s in describe.graph_inputs(model) if s.name not in carried)
    return Source(
        path=graph,
        name=_name(origin),
        digest=digest,
        size_bytes=size_bytes,
        model=model,
        kind=describe.kind_of(model),
        task=task,
        inputs=inputs,
        outputs=outputs,
        states=bound,
        tokenizer=tokenizer if tokenizer.is_file() else None,
        labels=_labels(origin.parent, classes),
        preprocess=_preprocess(origin.parent / "preprocessor_config.json", inputs),
    )


def _preprocess(file: Path, inputs: Sequence[TensorSpec]) -> tuple[Step, ...]:
    """How the model takes pictures or sound; none where no step can do it, as of detectors."""
    config = _read_json(file)
    if isinstance(config, dict):
        with suppress(SourceError):
            return (to_step(read_preprocessor(config, inputs, str(file))),)
    return ()


def _load(path: Path) -> tuple[ir.Model, list[Path]]:
    """The graph, and all files it consists of."""
    try:
        if not path.stat().st_size:
            raise google.protobuf.message.DecodeError("the file is empty")
        model = ir.load(path)
        files = [path, *_external_files(model, path)]
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except google.protobuf.message.DecodeError as error:
        raise SourceError(
            f"not an ONNX model: {error}", where=str(path), remedy="export or download it again"
        ) from None
    except (ValueError, ir.serde.SerdeError) as error:
        reason: BaseException = error
        while reason.__cause__:  # the others repeat the whole node
            reason = reason.__cause__
        why = str(reason).split(". ")[0]
        raise SourceError(
            f"not an ONNX graph: {why}",
            where=str(path),
            remedy=next((remedy for word, remedy in REMEDIES.items() if word in why), EXPORT),
        ) from None
    problem = complaint(path)
    if problem:
        raise SourceError(
            f"the ONNX checker refuses it: {problem}",
            where=str(path),
            remedy="export it again with a current exporter",
        )
    sparse = _without_origin(model.graph)
    if sparse:
        raise SourceError(
            f"its weight {sparse!r} is a sparse initializer, which is not read",
            where=str(path),
            remedy="store it dense",
        )
    if not model.graph.outputs:
        raise SourceError("the graph has no outputs", where=str(path))
    return model, files


def _without_origin(graph: ir.Graph) -> str | None:
    """A value that nothing gives: the reader leaves sparse initializers out."""
    for node in graph:
        for value in node.inputs:
            if value is not None and not (
                value.producer() or value.is_graph_input() or value.is_initializer()
            ):
                return value.name
    return None


def _external_files(model: ir.Model, path: Path) -> list[Path]:
    needed: dict[Path, int] = {}
    for graph in each_graph(model.graph):
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor):
                file, end = Path(tensor.path), (tensor.offset or 0) + tensor.nbytes
                needed[file] = max(end, needed.get(file, 0))
    for file, size in needed.items():
        if not file.is_file() or file.stat().st_size < size:
            raise SourceError(
                f"its external data file {file.name!r} is missing or cut off",
                where=str(path),
                remedy=f"put it beside the graph file, with all of its {size} bytes",
            )
    return list(needed)


def _name(path: Path) -> str:
    """A bundle's name from the file's; from the folder's where the file is just a ``model``."""
    return bundle_name(path.stem if path.stem != "model" else path.absolute().parent.name)


def _labels(folder: Path, classes: int | str | None) -> tuple[str, ...]:
    """Class names from ``labels.json`` (a list) or ``config.json`` (``id2label``).

    The latter often lies beside a model that was cut before its classes.
    """
    names = _read_json(folder / "labels.json")
    if isinstance(names, list):
        if isinstance(classes, int) and len(names) != classes:
            raise SourceError(
                f"{len(names)} names for {classes} classes", where=str(folder / "labels.json")
            )
        return tuple(str(name) for name in names)
    config = _read_json(folder / "config.json")
    table = config.get("id2label") if isinstance(config, dict) else None
    names = [table.get(str(i)) for i in range(len(table))] if isinstance(table, dict) else []
    fits = None not in names and (not isinstance(classes, int) or len(names) == classes)
    return tuple(str(name) for name in names) if fits else ()


def _read_json(file: Path) -> object:
    if not file.is_file():
        return None
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SourceError(f"not valid JSON: {error}", where=str(file)) from None
