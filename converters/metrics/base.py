"""What a metric is, and how one is found by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points

from converters.dataset import Array
from edge_sdk.errors import RecipeError
from edge_sdk.plugins import load_plugin

Sequences = Sequence[Array]
"""One array per sample."""


@dataclass(frozen=True)
class Metric:
    """A figure of merit over samples.

    Attributes:
        name: As in reports and in ``--metric``.
        function: ``(predictions, references) -> value``, one array per sample in each.
        higher_is_better: ``False`` for error rates and perplexity.
        relative: Whether a drop is relative to the source's value.
        max_drop: The drop allowed where the user does not say.
        needs_labels: Whether references must come from labels; otherwise the
            source's own outputs can stand in for them.
    """

    name: str
    function: Callable[[Sequences, Sequences], float]
    higher_is_better: bool = True
    relative: bool = False
    max_drop: float = 0.01
    needs_labels: bool = True

    def drop(self, source: float, variant: float) -> float:
        """How much worse the variant is; negative where it is better."""
        worse = source - variant if self.higher_is_better else variant - source
        if not self.relative or worse == 0:
            return worse
        return worse / abs(source) if source else math.copysign(1.0, worse)


def metric_names() -> tuple[str, ...]:
    """Names of all metrics registered here, sorted."""
    return tuple(sorted(entry.name for entry in entry_points(group="edge_sdk.metrics")))


def find_metric(name: str) -> Metric:
    """A registered metric, or a function of the user's as ``module:function``.

    A plain function counts as an absolute, higher-is-better metric; to say
    otherwise, let the name refer to a :class:`Metric`.

    Raises:
        RecipeError: There is no such metric, or what the name refers to is none.
    """
    for entry in entry_points(group="edge_sdk.metrics"):
        if entry.name == name:
            return _as_metric(name, load_plugin(entry, RecipeError))
    module, colon, attribute = name.partition(":")
    if not colon:
        raise RecipeError(
            f"unknown metric {name!r}",
            where="--metric",
            remedy=f"use one of {', '.join(metric_names())}, or module:function",
        )
    try:
        return _as_metric(name, getattr(import_module(module), attribute))
    except (ImportError, AttributeError) as error:
        raise RecipeError(
            f"cannot load metric {name!r}: {error}",
            where="--metric",
            remedy="give an importable module:function; its folder must be on PYTHONPATH",
        ) from error


def _as_metric(name: str, found: object) -> Metric:
    if isinstance(found, Metric):
        return found
    if callable(found):
        return Metric(name, found)
    raise RecipeError(f"metric {name!r} is not callable", where="--metric")
