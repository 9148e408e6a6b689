"""Pre- and post-processing of an exported model, as the model's own files have it.

What comes out is what the source framework's pipeline for that task gives with its defaults.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from converters.decoder.checkpoint import read_json
from converters.hugging_face import tasks
from converters.hugging_face.folder import ModelFolder
from converters.hugging_face.sentence import pool_step
from converters.jsonl import token_inputs
from converters.preprocessors import read_preprocessor
from edge_sdk.bundle.record import Step, TensorSpec
from edge_sdk.errors import SourceError
from edge_sdk.runtime import steps

MAX_TOKENS = 512
_QUESTION_TOKENS, _SHARED_TOKENS = 384, 128  # windows of a pipeline for questions
_PREPROCESSOR, _VOCABULARY = "preprocessor_config.json", "vocab.json"
# Early processors do not say of what type they are.
_EXTRACTORS = {
    "whisper": "WhisperFeatureExtractor",
    "audio-spectrogram-transformer": "ASTFeatureExtractor",
}


@dataclass(frozen=True)
class Processing:
    """Steps around a graph.

    Attributes:
        before: From text, picture or sound to the graph's inputs.
        after: From its outputs to answers.
        files: What steps read beside the tokenizer, path in the variant -> file here.
    """

    before: tuple[Step, ...] = ()
    after: tuple[Step, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)


def processing(
    folder: ModelFolder, task: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> Processing:
    """The steps of a model.

    Args:
        folder: Its files.
        task: What it does, under optimum's name.
        inputs: Inputs of its graph.
        outputs: Outputs of its graph.

    Raises:
        SourceError: Its files ask for what no step can do.
    """
    first: steps.Options | None = media_step(folder, inputs)
    if first is None and reads_text(inputs):
        first = _tokenize(folder, task, inputs)
    after = _AFTER[task](folder, outputs) if task in _AFTER and first is not None else []
    files = {}
    if any(isinstance(step, steps.Ctc) for step in after):
        files[_VOCABULARY] = folder.path / _VOCABULARY
    return Processing(
        before=() if first is None else (steps.to_step(first),),
        after=tuple(map(steps.to_step, after)),
        files=files,
    )


def reads_text(inputs: Sequence[TensorSpec]) -> bool:
    """Whether text is all that a graph takes; CLIP and its kin take pictures beside it."""
    names = {spec.name for spec in inputs}
    return "input_ids" in names and not names & {"pixel_values", "input_features", "input_values"}


def media_step(
    folder: ModelFolder, inputs: Sequence[TensorSpec]
) -> steps.Image | steps.Waveform | steps.Spectrogram | None:
    """What a model of pictures or sound does first; ``None`` for others."""
    config = folder.optional(_PREPROCESSOR)
    if not config or any(spec.name == "input_ids" for spec in inputs):
        return None
    if not config.get("image_processor_type") and "sampling_rate" in config:
        kind = _EXTRACTORS.get(str(folder.config.get("model_type")), "Wav2Vec2FeatureExtractor")
        config = {"feature_extractor_type": kind, **config}
    return read_preprocessor(config, inputs, str(folder.path / _PREPROCESSOR))


def _tokenize(folder: ModelFolder, task: str, inputs: Sequence[TensorSpec]) -> steps.Tokenize:
    limit, stride = folder.token_limit or MAX_TOKENS, 0
    if task == tasks.ANSWERS:
        limit = min(limit, _QUESTION_TOKENS)
        stride = min(limit // 2, _SHARED_TOKENS)
    elif task == tasks.TAGS:
        stride = limit // 4
    return steps.Tokenize(inputs=token_inputs(inputs), max_length=limit, stride=stride)


def _pool(folder: ModelFolder, outputs: Sequence[TensorSpec]) -> list[msgspec.Struct]:
    step = pool_step(folder, tuple(outputs))
    return [] if step is None else [step]


def _classes(folder: ModelFolder, outputs: Sequence[TensorSpec]) -> list[msgspec.Struct]:
    """Probabilities as the pipelines have them: by the kind of problem, else by the classes."""
    output, names = outputs[0].name, folder.labels
    problem = folder.config.get("problem_type")
    after: list[msgspec.Struct] = [steps.Labels(output=output, names=names)]
    if problem == "regression":
        return after
    if problem == "multi_label_classification" or len(names) == 1:
        return [steps.Sigmoid(output=output), *after]
    return [steps.Softmax(output=output), *after]


def _tags(folder: ModelFolder, outputs: Sequence[TensorSpec]) -> list[msgspec.Struct]:
    return [steps.Entities(output=outputs[0].name, names=folder.labels)]


def _answers(folder: ModelFolder, outputs: Sequence[TensorSpec]) -> list[msgspec.Struct]:
    names = [spec.name for spec in outputs]
    return [steps.Span(start=names[0], end=names[1])]


def _fill(folder: ModelFolder, outputs: Sequence[TensorSpec]) -> list[msgspec.Struct]:
    return [steps.Fill(output=outputs[0].name, gap=folder.token("mask_token") or "[MASK]")]


def _ctc(folder: ModelFolder, outputs: Sequence[TensorSpec]) -> list[msgspec.Struct]:
    file = folder.path / _VOCABULARY
    if not file.is_file() or not all(isinstance(i, int) for i in read_json(file).values()):
        raise SourceError(
            "a model that writes letters needs a vocab.json of letters and their numbers",
            where=str(file),
            remedy="of a model with many languages, save the tokenizer for one",
        )
    extractor = folder.optional(_PREPROCESSOR)
    samples = math.prod(folder.config.get("conv_stride") or (320,))
    return [
        steps.Ctc(
            output=outputs[0].name,
            seconds=samples / float(extractor.get("sampling_rate", 16_000)),
            blank=folder.token("pad_token") or "<pad>",
            delimiter=folder.token("word_delimiter_token") or "|",
        )
    ]


_AFTER: Mapping[str, Callable[[ModelFolder, Sequence[TensorSpec]], list[msgspec.Struct]]] = {
    tasks.FEATURES: _pool,
    tasks.TAGS: _tags,
    tasks.ANSWERS: _answers,
    tasks.FILL: _fill,
    tasks.SPEECH: _ctc,
    **dict.fromkeys(tasks.CLASSIFICATIONS, _classes),
}
