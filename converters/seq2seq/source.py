"""An encoder-decoder model as a source: its two graphs, and how it reads and writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir

from converters import describe
from converters.decoder.checkpoint import read_json
from converters.materialize import save
from converters.seq2seq.graphs import PAST, PRESENT, encoder_with_cross, step_decoder
from converters.seq2seq.marian import is_marian, read_marian
from converters.seq2seq.settings import beams, read_decoding, undone
from converters.source import Source, digest_files
from converters.workshop import shipped_bytes
from device_profiles.schema import Kind
from edge_sdk.bundle.record import Decoding, State, Step, TensorSpec
from edge_sdk.errors import SourceError
from edge_sdk.runtime import steps

TEXT_TASK, SPEECH_TASK = "text2text-generation", "automatic-speech-recognition"
EXPORTED = ("encoder_model.onnx", "decoder_model.onnx", "decoder_with_past_model.onnx")
TOKENIZER_FILE = "tokenizer.json"
MAX_TOKENS = 512


@dataclass(frozen=True)
class Seq2SeqSource:
    """An encoder-decoder model before conversion.

    Attributes:
        path: Folder it was read from.
        name: Default name of the bundle.
        digest: ``sha256:…`` over its files.
        task: ``text2text-generation`` or ``automatic-speech-recognition``.
        encoder: The caller's inputs to the cross attention's keys and values.
        decoder: Tokens, cross keys and values and the past to logits and the present.
        decoding: How it writes.
        tokenizer: Its ``tokenizer.json``.
        preprocess: Steps before the encoder.
        files: What the steps read beside the tokenizer, path in the variant -> file here.
        licence: Its licence, where known.
        notes: What the reader had to say.
    """

    path: Path
    name: str
    digest: str
    task: str
    encoder: Source
    decoder: Source
    decoding: Decoding
    tokenizer: Path
    preprocess: tuple[Step, ...]
    files: Mapping[str, Path] = field(default_factory=dict)
    licence: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The encoder's inputs."""
        return self.encoder.inputs

    @property
    def size_bytes(self) -> int:
        """Both graphs with their weights."""
        return self.encoder.size_bytes + self.decoder.size_bytes


def is_export(folder: Path) -> bool:
    """Whether a folder holds what optimum exports."""
    return all((folder / file).is_file() for file in EXPORTED)


def export_digest(folder: Path) -> str:
    """``sha256:…`` over an export's files."""
    return digest_files(sorted(path for path in folder.iterdir() if path.is_file()))


def read_export(
    folder: Path,
    work: Path,
    *,
    path: Path,
    name: str,
    digest: str,
    preprocess: tuple[Step, ...] = (),
    files: Mapping[str, Path] | None = None,
    licence: str | None = None,
) -> Seq2SeqSource:
    """Reads what optimum exports for tasks that end in ``-with-past``.

    Args:
        folder: The export: three graphs (not merged), ``config.json`` and the like.
        work: Where the two graphs made of them are written.
        path: What the user gave.
        name: Default name of the bundle.
        digest: Over the user's files.
        preprocess: Steps before the encoder; by default a model that takes tokens gets the
            step that makes them.
        files: What those steps read beside the tokenizer.
        licence: Its licence, where known.

    Raises:
        SourceError: A file is missing, or it is no encoder-decoder model that we know.
    """
    for file in EXPORTED:
        if not (folder / file).is_file():
            raise SourceError("the export has no such file", where=str(folder / file))
    work.mkdir(parents=True, exist_ok=True)
    encoder, first, with_past = (ir.load(folder / file) for file in EXPORTED)
    config = read_json(folder / "config.json")
    # The exporter's copy lacks what it does not know.
    generation = _optional(path / "generation_config.json") or _optional(
        folder / "generation_config.json"
    )
    takes_text = any(value.name == "input_ids" for value in encoder.graph.inputs)
    notes = [f"not applied: {setting}" for setting in undone(config, generation)]
    if (count := beams(config, generation)) > 1:
        notes.append(f"greedy, where the source's settings search {count} beams")
    return Seq2SeqSource(
        path=path,
        name=name,
        digest=digest,
        task=TEXT_TASK if takes_text else SPEECH_TASK,
        encoder=_source(encoder_with_cross(encoder, first), work, "encoder", "encoder"),
        decoder=_source(step_decoder(with_past), work, "decoder", "decoder"),
        decoding=read_decoding(config, generation, str(path)),
        tokenizer=_tokenizer(folder, path, work),
        preprocess=preprocess or ((_tokens(config),) if takes_text else ()),
        files=files or {},
        licence=licence,
        notes=tuple(notes),
    )


def _source(model: ir.Model, work: Path, name: str, kind: Kind) -> Source:
    """One of the two graphs, as any other source."""
    path = save(model, work, name)
    outputs = describe.graph_outputs(model)
    states = tuple(
        State(input=output.name.replace(PRESENT, PAST, 1), output=output.name)
        for output in outputs
        if ".decoder." in output.name
    )
    carried = {state.input for state in states}
    return Source(
        path=path,
        name=name,
        digest=digest_files(file for file in (path, path.with_suffix(".bin")) if file.is_file()),
        size_bytes=shipped_bytes(model, path),
        model=model,
        kind=kind,
        task="generic",
        inputs=tuple(s for s in describe.graph_inputs(model) if s.name not in carried),
        outputs=outputs,
        states=states,
    )


def _tokenizer(folder: Path, path: Path, work: Path) -> Path:
    """The export's ``tokenizer.json``, or one made of Marian's files."""
    if (folder / TOKENIZER_FILE).is_file():
        return folder / TOKENIZER_FILE
    marian = next((each for each in (folder, path) if is_marian(each)), None)
    if marian is None:
        raise SourceError(
            "the export has no such file",
            where=str(folder / TOKENIZER_FILE),
            remedy="save the tokenizer as tokenizer.json beside it",
        )
    (work / TOKENIZER_FILE).write_bytes(read_marian(marian))
    return work / TOKENIZER_FILE


def _tokens(config: Mapping[str, Any]) -> Step:
    longest = config.get("n_positions") or config.get("max_position_embeddings") or MAX_TOKENS
    return steps.to_step(
        steps.Tokenize(
            inputs={"input_ids": "ids", "attention_mask": "mask"}, max_length=int(longest)
        )
    )


def _optional(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}
