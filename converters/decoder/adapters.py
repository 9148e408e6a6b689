"""Low-rank adapters (LoRA, arXiv:2106.09685) in PEFT's files, as inputs of the adapted graph.

PEFT keeps ``lora_A`` [rank, in] and ``lora_B`` [out, rank] beside each adapted matrix of
the checkpoint. The graph multiplies rows, and some of its nodes stack several matrices
(:mod:`converters.decoder.names`): their adapters stand side by side in one ``a``, and
block by block in one ``b``, with the scale in it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters.decoder import families
from converters.decoder.architecture import Architecture
from converters.decoder.checkpoint import Checkpoint, read_json
from converters.decoder.config import Config
from converters.decoder.families import Part
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
    places, sizes = families.places(architecture), shapes(architecture)
    sizes.setdefault("head", sizes["embed"])
    pairs = _read_pairs(Checkpoint(folder / WEIGHTS), config, _matrices(architecture))
    arrays: dict[str, Array] = {}
    for node in nodes(architecture):
        arrays |= _arrays(node, pairs, places, {part: sizes[part][0] for part in parts(node)})
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


def _matrices(architecture: Architecture) -> dict[str, tuple[int, int]]:
    """Checkpoint module -> shape [out, in], of every matrix that a node multiplies with."""
    places, sizes = families.places(architecture), shapes(architecture)
    found: dict[str, tuple[int, int]] = {}
    for node in nodes(architecture):
        for part in parts(node):
            rows, width = sizes.get(part, sizes["embed"])
            module = _module(places[part])
            found[module] = found.get(module, (0, 0))[0] + rows, width
    return found


def _module(part: Part) -> str:
    return part.tensor.removesuffix(".weight")


def _read_pairs(
    checkpoint: Checkpoint, config: Config, matrices: Mapping[str, tuple[int, int]]
) -> dict[str, _Pair]:
    """Checkpoint module -> its adapter."""
    where = str(checkpoint.files[0])
    names: dict[str, dict[str, str]] = {}
    for tensor in checkpoint.tensors:
        match = _TENSOR.fullmatch(tensor)
        if match is None or match["module"] not in matrices:
            raise SourceError(
                f"tensor {tensor!r} belongs to no matrix that can be adapted",
                where=where,
                remedy=f"adapt only {', '.join(_kinds(matrices))}, "
                "and save with save_embedding_layers=False",
            )
        names.setdefault(match["module"], {})[match["side"]] = tensor
    if not names:
        raise SourceError("holds no tensor", where=where, remedy="train and save it again")
    return {
        module: _read_pair(checkpoint, config, module, sides, matrices[module])
        for module, sides in names.items()
    }


def _kinds(matrices: Mapping[str, tuple[int, int]]) -> list[str]:
    return sorted({module.rpartition(".")[2] for module in matrices})


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
    up = checkpoint.read(sides["B"]).T * np.float32(_scale(config, module, rank))
    return _Pair(checkpoint.read(sides["A"]).T, up)


def _check_shape(tensor: str, stored: Stored, wanted: tuple[int, int]) -> None:
    if stored.shape != wanted or not min(wanted):
        raise SourceError(
            f"tensor {tensor!r} of shape {list(stored.shape)} does not fit the base model, "
            f"where it would be {list(wanted)}",
            where=str(stored.file),
            remedy="give an adapter that was trained on this very model",
        )


def _arrays(
    node: str, pairs: Mapping[str, _Pair], places: Mapping[str, Part], rows: Mapping[str, int]
) -> dict[str, Array]:
    """The two inputs of a node; none where nothing adapts it.

    Args:
        node: The node.
        pairs: Checkpoint module -> its adapter.
        places: Canonical name -> where the checkpoint keeps it.
        rows: Canonical name -> rows, of the matrices that the node stacks.
    """
    downs, ups = [], []
    for module in dict.fromkeys(_module(places[part]) for part in rows):
        if module not in pairs:
            continue
        pair, end = pairs[module], 0
        up = np.zeros((pair.up.shape[0], sum(rows.values())), np.float32)
        for part, count in rows.items():
            start, end = end, end + count
            place = places[part]
            if _module(place) == module:
                up[:, start:end] = pair.up if place.rows is None else pair.up[:, place.rows]
        downs.append(pair.down)
        ups.append(up)
    if not downs:
        return {}
    return {
        f"lora.{node}.a": np.concatenate(downs, axis=1),
        f"lora.{node}.b": np.concatenate(ups),
    }
