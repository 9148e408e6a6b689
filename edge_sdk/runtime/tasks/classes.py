"""``classify``: the best classes of texts, pictures, sounds or arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_sdk.runtime import scores
from edge_sdk.runtime.steps import Image, Labels, Sigmoid, Softmax
from edge_sdk.runtime.tasks.media import is_sound, picture_feeds, sound_feeds
from edge_sdk.runtime.tasks.results import Classification
from edge_sdk.runtime.tasks.texts import at_least_one, run_texts, texts_of
from edge_sdk.runtime.tasks.variant import Outputs, Variant

Ranked = list[list[Classification]]


def classify(variant: Variant, given: Any, top: int, rate: int | None) -> Ranked:
    """The best classes of each row, best first; see :meth:`edge_sdk.Model.classify`."""
    variant.need(Labels, "classify")
    at_least_one("top", top)
    if isinstance(given, Mapping):
        return _ranked(variant, variant.run(given), top)
    if variant.find(Image):
        feeds = picture_feeds(variant, given)
    elif is_sound(variant):
        feeds = sound_feeds(variant, given, rate)
    else:
        return _texts(variant, given, top)
    return [row for one in feeds for row in _ranked(variant, variant.run(one), top)]


def _texts(variant: Variant, given: Any, top: int) -> Ranked:
    rows = texts_of(given)
    found: Ranked = [[] for _ in rows]
    for part, outputs in run_texts(variant, rows):
        for row, ranked in zip(part.rows, _ranked(variant, outputs, top), strict=True):
            found[row] = ranked
    return found


def _ranked(variant: Variant, outputs: Outputs, top: int) -> Ranked:
    output = variant.need(Labels, "classify").output
    values = outputs[output]
    exclusive, independent = variant.find(Softmax), variant.find(Sigmoid)
    if exclusive is not None and exclusive.output == output:
        values = scores.softmax(values)
    elif independent is not None and independent.output == output:
        values = scores.sigmoid(values)
    return scores.rank(values, variant.labels, top, output)
