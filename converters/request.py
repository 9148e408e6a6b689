"""What a conversion is asked to do."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from converters.hugging_face.tasks import TASKS as EXPORT_TASKS
from edge_sdk.bundle import oci
from edge_sdk.bundle.record import State
from edge_sdk.errors import InputError

# Three numbers and, as semantic versioning has it, a pre-release or build.
VERSION = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}([-+].+)?")
MIN_CONTEXT = 64  # a shorter one leaves no text to measure on
TASKS = ("classification", "generic", *EXPORT_TASKS)


@dataclass(frozen=True)
class Request:
    """What to convert, for what, within which limits.

    Attributes:
        source: The model file or folder.
        profiles: Names or files of device profiles.
        out: The bundle's directory.
        task: Overrides the detected task.
        name: Overrides the bundle's name.
        version: The bundle's version.
        data: Calibration and evaluation data; generated inputs when ``None``.
        max_drop: Most accuracy a variant may lose; 0.01 (0.05 relative) when ``None``.
        metric: Name of a task metric, or ``module:function``.
        recipe: TOML file that forces a candidate.
        base: Bundle whose recipe and scales are kept, for small deltas.
        states: Recurrences; detected when ``None``.
        fixed: Scalar inputs to fix, which select branches.
        adapters: Name -> folder of a low-rank adapter, for dialogue models.
        context: Tokens that a dialogue model keeps positions for; at most 32,768 when ``None``.
        overwrite: Whether an existing bundle may be replaced.

    Raises:
        InputError: A limit, name, version, task or context is not one.
    """

    source: Path
    profiles: tuple[str, ...]
    out: Path
    task: str | None = None
    name: str | None = None
    version: str = "1.0.0"
    data: Path | None = None
    max_drop: float | None = None
    metric: str | None = None
    recipe: Path | None = None
    base: Path | None = None
    states: tuple[State, ...] | None = None
    fixed: Mapping[str, float] | None = None
    adapters: Mapping[str, Path] = field(default_factory=dict)
    context: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.max_drop is not None and not (self.max_drop >= 0 and math.isfinite(self.max_drop)):
            raise InputError(
                f"{self.max_drop:g} is no limit", where="--max-drop", remedy="give 0 or more"
            )
        if self.task not in (None, *TASKS):
            raise InputError(
                f"unknown task {self.task!r}",
                where="--task",
                remedy=f"use one of {', '.join(TASKS)}",
            )
        oci.check_name(self.version, "--version")
        if not VERSION.fullmatch(self.version):
            raise InputError(
                f"{self.version!r} is no version",
                where="--version",
                remedy="give three numbers, as in 1.2.0 or 1.2.0-rc.1",
            )
        if self.context is not None and self.context < MIN_CONTEXT:
            raise InputError(
                f"{self.context} tokens are too few",
                where="--context",
                remedy=f"give {MIN_CONTEXT} or more",
            )
        if self.name is not None:
            oci.check_name(self.name, "--name")
        for name in self.adapters:
            oci.check_name(name, "--adapter")
