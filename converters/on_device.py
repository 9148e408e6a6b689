"""Finalists measured on a real device, and what its figures say about its profile.

The device is handed in as a :class:`DeviceMeasurer`, so nothing here knows of a network. What it
measures takes the place of what this host measured, or the profile's rules predicted.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import msgspec

from converters.choose import Judged, Limits, finalists_of, objection
from converters.recipes import family_of
from device_profiles.schema import EngineChoice, Profile, RecipeFamily
from edge_sdk.bundle.measurements import Candidate, DeviceFigures
from edge_sdk.bundle.record import Recipe, VariantRecord
from edge_sdk.bundle.writer import BundleWriter

SECONDS = 3.0
Pack = Callable[[BundleWriter, Judged, str], VariantRecord]


class DeviceMeasurer(Protocol):
    """Measures variants on one device.

    Attributes:
        name: The device, for reports.
    """

    name: str

    def __call__(self, bundles: Mapping[str, Path], seconds: float) -> Mapping[str, DeviceFigures]:
        """Measures the only variant of each bundle; name -> figures, or why there are none."""


def trial_name(name: str) -> str:
    """A bundle's name that nobody else uses on the server."""
    return f"{name}-trial-{secrets.token_hex(4)}"


def measured_on(measurer: DeviceMeasurer | None, chosen: Judged) -> tuple[str, ...]:
    """Notes for a report on what a device measured."""
    if measurer is None or chosen.device is None:
        return ()
    return (
        f"the finalists' speed and memory are those of {measurer.name}",
        *chosen.device.notes,
    )


class DeviceTrial:
    """Has candidates measured on a device.

    Args:
        measurer: The device.
        pack: Puts a candidate into a bundle, as a version of its own.
        profile: What the candidates are for.
        say: Told what happens.
    """

    def __init__(
        self, measurer: DeviceMeasurer, pack: Pack, profile: Profile, say: Callable[[str], None]
    ) -> None:
        self._measurer = measurer
        self._pack = pack
        self._profile = profile
        self._say = say
        self._count = 0

    def __call__(self, candidates: Sequence[Judged]) -> list[Judged]:
        """The candidates as the device sees them.

        Those after the first are judged by it, or by the first one that runs there.
        """
        self._say(f"{self._profile.name}: measuring {len(candidates)} on {self._measurer.name}")
        with tempfile.TemporaryDirectory(prefix="edge-sdk-") as folder:
            bundles = {c.name: self._bundle(c, Path(folder)) for c in candidates}
            figures = self._measurer(bundles, SECONDS)
        return judged_by(candidates, figures)

    def _bundle(self, candidate: Judged, folder: Path) -> Path:
        self._count += 1
        path = folder / str(self._count)
        with BundleWriter(path) as writer:
            record = self._pack(writer, candidate, f"0.0.{self._count}")
            writer.add_variant(record, self._profile.platform)
            writer.finish()
        return path


def judged_by(candidates: Sequence[Judged], figures: Mapping[str, DeviceFigures]) -> list[Judged]:
    """Candidates with a device's figures in place of this host's.

    Speed is relative to the first candidate that ran there, which keeps its own: the source's
    is 1.

    Args:
        candidates: The source first, where it is one of them.
        figures: By name; some may say why there are none.
    """
    ran = [c for c in candidates if c.name in figures and figures[c.name].error is None]
    base = ran[0] if ran else None
    found = []
    for candidate in candidates:
        own = figures.get(candidate.name, DeviceFigures(error="the device gave no figures"))
        changed = replace(candidate, device=own)
        if base is not None and own.error is None:
            ratio = figures[base.name].p50_ms / own.p50_ms if own.p50_ms else 1.0
            changed = replace(
                changed,
                speedup=base.speedup * ratio,
                measured=True,
                # What a model needs for longer texts than the device was given, only plans say.
                peak_bytes=max(candidate.peak_bytes, own.peak_rss_bytes),
                confirmed=True,
            )
        found.append(changed)
    return found


def measure_finalists(
    judged: MutableMapping[str, Judged],
    limits: Limits,
    source: str,
    on_device: Callable[[Sequence[Judged]], list[Judged]],
) -> None:
    """Has the best candidates measured on a device, until all that could win have been.

    What a device refuses makes room for others. With those goes what they are to be
    compared with: what ran there before, or else the source if it may ship.

    Args:
        judged: By name; those that are measured are replaced.
        limits: What they must hold.
        source: The source's name.
        on_device: Measures some of them.
    """
    while fresh := [c for c in finalists_of(judged.values(), limits) if c.device is None]:
        known = [c for c in judged.values() if c.device and not c.device.error]
        first = known[:1] or [c for c in judged.values() if c.name == source]
        base = [c for c in first if objection(c, limits) is None]
        asked = [*base, *(c for c in fresh if c not in base)]
        judged.update({found.name: found for found in on_device(asked)})


def refined(profile: Profile, rows: Iterable[Candidate]) -> Profile:
    """A profile whose expected speedups are those that its device measured.

    Of a family with several candidates the quickest counts; what was not measured stays.

    Args:
        profile: What the candidates were made for.
        rows: The table of candidates, with the device's figures.
    """
    measured: dict[tuple[str, RecipeFamily], float] = {}
    for row in rows:
        family = family_of(Recipe(name=row.name))
        if row.device is None or row.device.error or family is None or not row.speedup:
            continue
        key = row.engine, family
        measured[key] = max(measured.get(key, 0.0), round(row.speedup, 2))

    def of(engine: EngineChoice) -> EngineChoice:
        own = {family: speed for (name, family), speed in measured.items() if name == engine.name}
        return msgspec.structs.replace(engine, speedups={**engine.speedups, **own})

    return msgspec.structs.replace(profile, engines=tuple(map(of, profile.engines)))
