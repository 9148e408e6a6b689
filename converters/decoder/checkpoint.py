"""Hugging Face weight files: safetensors, whole or sharded, one tensor in memory at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from converters.decoder.stored import Stored, portions
from converters.decoder.weights import WeightFormat
from converters.quantize import Blocks
from edge_sdk.errors import SourceError

INDEX = "model.safetensors.index.json"
DTYPES = ("BF16", "F16", "F32", "F64")
OTHER_FORMATS = ("*.bin", "*.pth", "*.pt", "*.msgpack", "*.h5")


class Checkpoint:
    """The tensors of a checkpoint, under the names they have there.

    Files are opened for each read and closed again, so that pages read do not
    count as this process's memory.

    Attributes:
        files: The weight files, in the order of their names.
        tensors: Name -> where it is.
    """

    def __init__(self, path: Path) -> None:
        """Reads the headers of all weight files of a folder, or of one file.

        Raises:
            SourceError: There are none, one is missing, cut off or damaged.
        """
        self.files = (path,) if path.is_file() else _weight_files(path)
        self.tensors: Mapping[str, Stored] = {
            name: stored for file in self.files for name, stored in _header(file).items()
        }

    def read(self, name: str) -> NDArray[np.float32]:
        """One tensor in float32.

        Raises:
            SourceError: Its element type is not a float that is supported.
        """
        stored = self.tensors[name]
        if stored.dtype not in DTYPES:
            raise SourceError(
                f"tensor {name!r} has the unsupported type {stored.dtype}",
                where=str(stored.file),
                remedy=f"give an unquantized checkpoint ({', '.join(DTYPES)})",
            )
        value = np.empty(stored.shape, np.float32)
        with safe_open(stored.file, framework="np") as file:
            tensor = file.get_slice(name)
            for rows in portions(stored.shape):  # so that there is no second copy in memory
                value[rows] = tensor[rows]
        return value

    def blocks(self, name: str, wanted: WeightFormat) -> Blocks | None:
        """``None``: checkpoints hold floats."""
        return None


def _weight_files(folder: Path) -> tuple[Path, ...]:
    index = folder / INDEX
    if index.is_file():
        table = read_json(index).get("weight_map")
        if not isinstance(table, dict) or not table:
            raise SourceError("has no weight_map", where=str(index), remedy="download it again")
        files = tuple(folder / name for name in sorted(set(map(str, table.values()))))
        for file in files:
            if not file.is_file():
                raise SourceError(
                    f"names the file {file.name!r}, which is not there",
                    where=str(index),
                    remedy="download all files of the model",
                )
        return files
    # Some repositories hold the weights once more, in their authors' own layout.
    whole = folder / "model.safetensors"
    files = (whole,) if whole.is_file() else tuple(sorted(folder.glob("*.safetensors")))
    if not files:
        raise SourceError("holds no *.safetensors file", where=str(folder), remedy=_instead(folder))
    return files


def _instead(folder: Path) -> str:
    """What to do about a folder without safetensors."""
    for file in sorted(folder.rglob("*.onnx")):
        return f"give the graph itself: {file}"
    for pattern in OTHER_FORMATS:
        for file in sorted(folder.glob(pattern)):
            return f"{file.name} is not read, as it may hold code: save the model as safetensors"
    return "download the model's *.safetensors files"


def _header(file: Path) -> dict[str, Stored]:
    try:
        with safe_open(file, framework="np") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            return {
                name: Stored(file, part.get_dtype(), tuple(part.get_shape()))
                for name, part in slices.items()
            }
    except (SafetensorError, OSError) as error:
        raise SourceError(
            f"not a complete safetensors file: {error}",
            where=str(file),
            remedy="download it again",
        ) from None


def read_json(file: Path) -> dict[str, Any]:
    """A file's JSON object.

    Raises:
        SourceError: It cannot be read or is not a JSON object.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(f"not valid JSON: {error}", where=str(file)) from None
    if not isinstance(value, dict):
        raise SourceError("not a JSON object", where=str(file))
    return value
