"""The modules of a sentence-transformers folder: from token vectors to one vector per text.

The mean or the first token is a step on the device. What else there is, other ways of pooling and
dense layers behind them, becomes part of the graph, so that it is quantized and timed with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import onnx

from converters.decoder.checkpoint import Checkpoint, read_json
from converters.hugging_face.folder import ModelFolder
from converters.hugging_face.tail import ACTIVATIONS, POOLINGS, Tail
from edge_sdk.bundle.record import TensorSpec
from edge_sdk.errors import SourceError
from edge_sdk.runtime import steps
from edge_sdk.runtime.steps import Similarity

MODULES, SETTINGS = "modules.json", "config_sentence_transformers.json"
VECTOR = "sentence_embedding"
_SUPPORTED = ("Transformer", "Pooling", "Dense", "Normalize", "Dropout")
_ON_DEVICE: Mapping[tuple[str, ...], steps.Pooling] = {("mean",): "mean", ("cls",): "cls"}
_SIMILARITIES: Mapping[str, Similarity] = {
    "cosine": "cosine", "dot": "dot", "dot_product": "dot", "euclidean": "euclidean",
    "manhattan": "manhattan",
}  # fmt: skip


class _Module(msgspec.Struct, frozen=True):
    """An entry of ``modules.json``."""

    type: str
    path: str = ""

    @property
    def kind(self) -> str:
        """The class without its package."""
        return self.type.rpartition(".")[2]


@dataclass(frozen=True)
class Sentence:
    """How a folder makes one vector of a text's token vectors.

    Attributes:
        pooling: Ways of pooling; of several, the vectors are joined in this order.
        behind: Modules behind it, a last normalization left out.
        normalize: Whether that comes last.
        similarity: What compares two vectors.
        prompts: Name -> text before every text.
        prompt: Which of them is there by default.
    """

    pooling: tuple[str, ...]
    behind: tuple[_Module, ...]
    normalize: bool
    similarity: Similarity
    prompts: Mapping[str, str]
    prompt: str | None

    @property
    def in_graph(self) -> bool:
        """Whether the device has no step for it."""
        return bool(self.behind) or self.pooling not in _ON_DEVICE

    def step(self, output: str) -> steps.Pool:
        """What remains to do on the device."""
        return steps.Pool(
            output=VECTOR if self.in_graph else output,
            mode="none" if self.in_graph else _ON_DEVICE[self.pooling],
            normalize=self.normalize,
            similarity=self.similarity,
            prompts=dict(self.prompts),
            prompt=self.prompt,
        )


def read_sentence(folder: ModelFolder) -> Sentence | None:
    """The folder's modules; ``None`` where it has none.

    Raises:
        SourceError: There is one that is not supported.
    """
    file = folder.path / MODULES
    if not file.is_file():
        return None
    try:
        modules = msgspec.json.decode(file.read_bytes(), type=list[_Module])
    except msgspec.MsgspecError as error:
        raise SourceError(f"not a list of modules: {error}", where=str(file)) from None
    kinds = [module.kind for module in modules]
    unknown = [kind for kind in kinds if kind not in _SUPPORTED]
    if unknown or kinds[:2] != ["Transformer", "Pooling"]:
        raise SourceError(
            f"its module {unknown[0]!r} is not supported" if unknown else "it does not pool first",
            where=str(file),
            remedy=f"supported: {', '.join(_SUPPORTED)}; remove {MODULES} to have the token "
            "vectors' mean",
        )
    behind = [module for module in modules[2:] if module.kind != "Dropout"]
    normalize = bool(behind) and behind[-1].kind == "Normalize"
    settings = folder.optional(SETTINGS)
    prompts = {str(name): str(text) for name, text in (settings.get("prompts") or {}).items()}
    similarity = str(settings.get("similarity_fn_name") or "cosine")
    if similarity not in _SIMILARITIES:
        raise SourceError(
            f"unknown similarity {similarity!r}",
            where=f"{folder.path / SETTINGS}: similarity_fn_name",
            remedy=f"supported: {', '.join(_SIMILARITIES)}",
        )
    return Sentence(
        pooling=_pooling(folder.path / modules[1].path / "config.json", any(prompts.values())),
        behind=tuple(behind[:-1] if normalize else behind),
        normalize=normalize,
        similarity=_SIMILARITIES[similarity],
        prompts=prompts,
        prompt=settings.get("default_prompt_name"),
    )


def finish_graph(sentence: Sentence, folder: ModelFolder, made: Path, graph: Path) -> None:
    """Puts pooling and what is behind it into an exported graph.

    Args:
        sentence: What to do.
        folder: The model.
        made: The export, with weights of the modules that were no safetensors.
        graph: Its graph; written anew.

    Raises:
        SourceError: A module is not supported, or its files are damaged.
    """
    model = onnx.load(graph, load_external_data=False)
    if not any(value.name == "attention_mask" for value in model.graph.input):
        raise SourceError("has no attention_mask to pool by", where=str(folder.path / MODULES))
    tail = Tail(model, model.graph.output[0].name)
    tail.pool(sentence.pooling)
    for module in sentence.behind:
        if module.kind == "Normalize":
            tail.normalize()
        else:
            _dense(tail, folder.path / module.path, made)
    tail.end(VECTOR)
    onnx.save(model, graph)


def pool_step(folder: ModelFolder, outputs: tuple[TensorSpec, ...]) -> steps.Pool | None:
    """The step on the device: the mean of the token vectors where no module says more."""
    sentence = read_sentence(folder)
    if sentence is not None:
        return sentence.step(outputs[0].name)
    if outputs[0].shape is None or len(outputs[0].shape) != 3:
        return None
    return steps.Pool(output=outputs[0].name)


def _pooling(file: Path, prompted: bool) -> tuple[str, ...]:
    settings = read_json(file)
    asked = {name for name, value in settings.items() if name.startswith("pooling_mode_") and value}
    unknown = asked - POOLINGS.keys()
    if unknown or not asked:
        raise SourceError(
            f"pools by {', '.join(sorted(unknown)) or 'nothing'}",
            where=str(file),
            remedy=f"supported: {', '.join(POOLINGS)}",
        )
    if prompted and settings.get("include_prompt") is False:
        raise SourceError(
            "leaves the prompt's tokens out of the pooling, which is not supported",
            where=f"{file}: include_prompt",
        )
    return tuple(mode for name, mode in POOLINGS.items() if name in asked)


def _dense(tail: Tail, place: Path, made: Path) -> None:
    settings = read_json(place / "config.json")
    name = str(settings.get("activation_function", "Tanh")).rpartition(".")[2]
    if name not in ACTIVATIONS:
        raise SourceError(
            f"has the activation {name!r}",
            where=f"{place / 'config.json'}: activation_function",
            remedy=f"supported: {', '.join(ACTIVATIONS)}",
        )
    converted = made / f"{place.name}.safetensors"
    weights: Any = Checkpoint(converted if converted.is_file() else place)
    missing = {"linear.weight"} - weights.tensors.keys()
    if missing:
        raise SourceError("has no linear.weight", where=str(weights.files[0]))
    bias = "linear.bias" if "linear.bias" in weights.tensors else None
    tail.dense(weights.read("linear.weight").T, None if bias is None else weights.read(bias), name)
