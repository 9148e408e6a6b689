"""Host side: source -> graph -> passes -> verified variants -> bundle.

::

    from converters import convert

    report = convert("model.onnx", profiles=["x86-64", "arm64"], out="model.bundle")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from converters.on_device import DeviceMeasurer
    from converters.report import Report

__all__ = ["convert"]


def convert(
    source: str | PathLike[str],
    profiles: Sequence[str],
    out: str | PathLike[str],
    *,
    task: str | None = None,
    name: str | None = None,
    version: str = "1.0.0",
    data: str | PathLike[str] | None = None,
    max_drop: float | None = None,
    metric: str | None = None,
    recipe: str | PathLike[str] | None = None,
    base: str | PathLike[str] | None = None,
    states: Mapping[str, str] | None = None,
    fixed: Mapping[str, float] | None = None,
    adapters: Mapping[str, str | PathLike[str]] | None = None,
    context: int | None = None,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
    measurer: DeviceMeasurer | None = None,
) -> Report:
    """Converts a model into one verified bundle with a variant per device profile.

    Args:
        source: Model file.
        profiles: Names of device profiles, or paths of profile files.
        out: Directory of the bundle; complete afterwards, or absent.
        task: What the model does; detected when ``None``.
        name: Name of the bundle; the source's by default.
        version: Version of the bundle.
        data: ``.npz``, folder of ``.npz`` or ``.jsonl`` to calibrate and evaluate on;
            inputs are generated when ``None``.
        max_drop: Most a variant may lose: absolute for accuracy-like metrics and for
            ``1 - cosine`` (default 0.01), relative for perplexity (default 0.05).
        metric: Task metric, by name or ``module:function``; needs labels in the data.
        recipe: TOML file that forces a candidate.
        base: Bundle whose recipe, scales and bytes are kept where the source is unchanged.
        states: Recurrence, output name -> input name; detected when ``None``.
        fixed: Scalar inputs that never change, input name -> value.
        adapters: Low-rank adapters of a dialogue model, name -> folder that PEFT has
            saved; each request then chooses one of them, or none.
        context: Tokens that a dialogue model keeps positions for; all of its own, but at
            most 32,768, when ``None``.
        overwrite: Whether an existing bundle may be replaced.
        progress: Told in a sentence what happens.
        measurer: A device that measures the finalists, in place of this machine.

    Returns:
        The report: what was chosen for each profile, why, and the table of candidates.

    Raises:
        InputError: Something given is wrong; nothing was written.
        ConversionError: A profile's limits cannot be held; nothing was written.
    """
    from pathlib import Path

    from converters.conversion import run
    from converters.request import Request
    from edge_sdk.bundle.record import State

    request = Request(
        source=Path(source),
        profiles=(profiles,) if isinstance(profiles, str) else tuple(profiles),
        out=Path(out),
        task=task,
        name=name,
        version=version,
        data=Path(data) if data else None,
        max_drop=max_drop,
        metric=metric,
        recipe=Path(recipe) if recipe else None,
        base=Path(base) if base else None,
        states=None
        if states is None
        else tuple(State(input=i, output=o) for o, i in states.items()),
        fixed=fixed,
        adapters={name: Path(folder) for name, folder in (adapters or {}).items()},
        context=context,
        overwrite=overwrite,
    )
    return run(request, progress or (lambda message: None), measurer)
