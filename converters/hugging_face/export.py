"""The export of a model by the toolchain ``hugging-face``, done once and kept in its cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from converters import toolchains
from converters.toolchains.process import Progress
from edge_sdk.errors import SourceError

TOOLCHAIN = "hugging-face"
GRAPH = "model.onnx"
_VERSIONS = ("torch", "transformers", "optimum", "optimum-onnx", "onnxscript")


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """What a tool of the toolchain made.

    Attributes:
        graphs: Files in the folder that it filled.
        refused: Why there are none.
        supported: What there would be instead.
        where: What it found fault with, where it knows better than who asks.
        remedy: What to do about it.
    """

    graphs: tuple[str, ...] = ()
    refused: str = ""
    supported: tuple[str, ...] = ()
    where: str = ""
    remedy: str | None = None


def export(
    tool: str,
    request: Mapping[str, Any],
    digest: str,
    say: Progress,
    *,
    where: str,
    finish: Callable[[Path], None] = lambda made: None,
) -> Path:
    """The folder of an export.

    Args:
        tool: ``export`` for a folder, ``export_program`` for a ``.pt2`` file.
        request: What it is asked, without ``out``.
        digest: Of the source's files.
        say: Told how far it is.
        where: The source, for messages.
        finish: What else is done to the folder before it is kept.

    Raises:
        SourceError: The exporter does not support the model.
        ToolchainError: The toolchain cannot be built, or the export failed.
    """
    environment = toolchains.find(TOOLCHAIN)
    script = hashlib.sha256(environment.toolchain.script.read_bytes()).hexdigest()

    def make(folder: Path) -> None:
        answer = environment.call(tool, {**request, "out": str(folder)}, say)
        exported = msgspec.convert(answer, Exported)
        if exported.refused:
            raise SourceError(
                exported.refused,
                where=exported.where or where,
                remedy=f"supported: {', '.join(exported.supported)}"
                if exported.supported
                else exported.remedy,
            )
        finish(folder)

    return environment.cached(f"{tool} {request.get('task')} {script} {digest}", make, say)


def versions() -> dict[str, str]:
    """Versions of what takes part in an export, for the record."""
    marker = toolchains.find(TOOLCHAIN).marker
    pins = (package.partition("==") for package in (marker.packages if marker else ()))
    found = {name.replace("_", "-"): version for name, _, version in pins}
    return {name: found[name] for name in _VERSIONS if name in found}
