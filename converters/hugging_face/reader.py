"""An exported model as a source: its graph or graphs, its steps, and where it comes from."""

from __future__ import annotations

import atexit
import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

import onnx
import onnx_ir as ir

from converters.describe import graph_inputs
from converters.hugging_face import tasks
from converters.hugging_face.export import GRAPH, export, versions
from converters.hugging_face.folder import ModelFolder
from converters.hugging_face.sentence import finish_graph, read_sentence
from converters.hugging_face.steps import media_step, processing, reads_text
from converters.seq2seq.source import Seq2SeqSource, export_digest, is_export, read_export
from converters.source import Source
from converters.sources.onnx import OnnxSource
from converters.toolchains.process import Progress
from edge_sdk.bundle.record import State
from edge_sdk.runtime import steps

_TOKENIZER = "tokenizer.json"


def read_model(
    folder: ModelFolder,
    task: str,
    named: str | None,
    states: tuple[State, ...] | None,
    say: Progress,
) -> Source | Seq2SeqSource:
    """Exports a model, or finds its export, and reads it.

    A folder that somebody exported an encoder-decoder model into is read as it is.

    Args:
        folder: The model.
        task: What to export it for.
        named: The task that the user named.
        states: Recurrences that the user named.
        say: Told how far the export is.

    Raises:
        SourceError: The model, or its preprocessing, is not supported.
        ToolchainError: The toolchain cannot be built, or the export failed.
    """
    if task.endswith(tasks.PAST) and is_export(folder.path):
        return _seq2seq(folder, folder.path, export_digest(folder.path))
    digest = folder.digest()
    folder.check()
    sentence = read_sentence(folder) if task == tasks.FEATURES else None
    where = f"{folder.path / 'config.json'}: model_type"

    def finish(made: Path) -> None:
        if not task.endswith(tasks.PAST):
            _fix_picture_size(folder, made / GRAPH)
        if sentence is not None and sentence.in_graph:
            finish_graph(sentence, folder, made, made / GRAPH)

    request = {"model": str(folder.path.absolute()), "task": task}
    made = export("export", request, digest, say, where=where, finish=finish)
    if task.endswith(tasks.PAST):
        return _seq2seq(folder, made, digest)
    tokenizer = made / _TOKENIZER
    source = OnnxSource().read(made / GRAPH, states=states, task=task)
    around = processing(folder, task, source.inputs, source.outputs)
    if not around.before or (reads_text(source.inputs) and not tokenizer.is_file()):
        say(f"{folder.path}: {_missing(source)}, so the variants take arrays alone")
    return replace(
        source,
        name=folder.name,
        digest=digest,
        task=named or task,
        tokenizer=tokenizer if tokenizer.is_file() else None,
        labels=folder.labels if task in (*tasks.CLASSIFICATIONS, tasks.TAGS) else (),
        preprocess=around.before,
        postprocess=around.after,
        files=around.files,
        licence=folder.licence,
        tools=versions(),
    )


def _missing(source: Source) -> str:
    """Why nothing is done before the graph."""
    if reads_text(source.inputs):
        return "no tokenizer"
    if any(spec.name == "input_ids" for spec in source.inputs):
        return "reads text and something else at once"
    return "no preprocessor_config.json"


def _seq2seq(folder: ModelFolder, made: Path, digest: str) -> Seq2SeqSource:
    """Graphs that were made of those of the export, for as long as this process lasts."""
    work = Path(mkdtemp(prefix="edge-sdk-"))
    atexit.register(shutil.rmtree, work, ignore_errors=True)
    inputs = OnnxSource().read(made / "encoder_model.onnx", states=(), task="generic").inputs
    first = media_step(folder, inputs)
    return read_export(
        made,
        work,
        path=folder.path,
        name=folder.name,
        digest=digest,
        preprocess=() if first is None else (steps.to_step(first),),
        licence=folder.licence,
    )


def _fix_picture_size(folder: ModelFolder, file: Path) -> None:
    """Writes into the graph what size pictures have, where its preprocessing decides that.

    The exporter leaves all sizes open, also of models that take only one.
    """
    model = onnx.load(file, load_external_data=False)
    inputs = {value.name: value for value in model.graph.input}
    step = media_step(folder, graph_inputs(ir.from_proto(model)))
    if not isinstance(step, steps.Image) or step.layout != "NCHW":
        return
    size = step.pad or step.crop or step.size
    if size is None:
        return
    dims = inputs[step.input].type.tensor_type.shape.dim
    for dim, length in zip(dims[1:], (1 if step.channels == "L" else 3, *size), strict=True):
        dim.dim_value = length
    onnx.save(model, file)
