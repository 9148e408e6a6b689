"""One conversion at work: what its profiles share, and one profile's variant after another."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from importlib.metadata import distributions
from pathlib import Path

import msgspec

from converters.choose import Judged, Limits
from converters.costs import reference_dimensions
from converters.data import split
from converters.dataset import Dataset
from converters.describe import graph_inputs
from converters.measure import machine, peak_rss
from converters.memory import candidate_plan
from converters.metrics import Metric
from converters.on_device import DeviceMeasurer, DeviceTrial, measured_on, trial_name
from converters.outcome import Outcome
from converters.package import MAX_TOKENS, Packing, base_statistics, pack
from converters.recipes import SOURCE, completed, split_steps
from converters.report import VariantSummary
from converters.request import Request
from converters.sampling import TIMED_CALLS, representative_calls, seconds_per_sample
from converters.search import Search
from converters.source import Source
from converters.stopwatch import Stopwatch
from converters.target import HOST_ENGINES, targets
from converters.tensorrt import Inspector, ShapeProfile, shape_profile
from converters.workshop import Built, Workshop
from device_profiles.machine import detect_machine
from device_profiles.schema import Profile, Rules
from edge_sdk.bundle.measurements import Candidate, VariantReport
from edge_sdk.bundle.reader import Bundle, Variant
from edge_sdk.bundle.record import Provenance, Recipe, VariantRecord
from edge_sdk.bundle.writer import BundleWriter
from edge_sdk.errors import ConversionError

Say = Callable[[str], None]

TOOLS = frozenset(
    {"ai-edge-litert", "edge-sdk", "numpy", "onnx", "onnx-ir", "onnxruntime", "onnxscript"}
)
DEFAULT_MAX_DROP = 0.01
QUICK_SECONDS = 0.4
EVALUATION_SECONDS = 4.0
MAX_THREADS = 4


class Job:
    """One conversion: what all of its profiles share."""

    def __init__(
        self,
        request: Request,
        source: Source,
        data: Dataset,
        metric: Metric | None,
        folder: Path,
        say: Say,
        measurer: DeviceMeasurer | None = None,
    ) -> None:
        self.request = request
        self.measurer = measurer
        self.source = source
        self.say = say
        self.name = request.name or source.name
        self.machine = detect_machine()
        calibration, evaluation = split(data)
        self.data = data
        per_sample = seconds_per_sample(source, evaluation)
        affordable = max(16, int(EVALUATION_SECONDS / per_sample))
        evaluation = evaluation.take(range(min(affordable, len(evaluation))))
        self.quick_samples = min(64, max(8, int(QUICK_SECONDS / per_sample)))
        self.workshop = Workshop(
            source,
            calibration,
            evaluation,
            folder,
            metric=metric,
            threads=min(MAX_THREADS, self.machine.cores),
        )
        self.calls = representative_calls(source, evaluation)
        self.stopwatch = Stopwatch(
            source.path, source.size_bytes, self.calls[:TIMED_CALLS], threads=1
        )
        self.dimensions = reference_dimensions(graph_inputs(source.model), self.calls)
        default = metric.max_drop if metric else DEFAULT_MAX_DROP
        self.max_drop = default if request.max_drop is None else request.max_drop
        self._peaks: dict[Path, int] = {}
        self._rss: dict[Path, int] = {}
        self._inspectors: dict[str, Inspector] = {}

    def variant(
        self, profile: Profile, writer: BundleWriter, forced: Recipe | None, base: Bundle | None
    ) -> VariantSummary:
        """Searches, packs and adds one profile's variant."""
        started = time.monotonic()
        rules = profile.quantization[self.source.kind]
        outcome = self.search(profile, rules, forced, base)
        if outcome.chosen is None:
            raise ConversionError(
                f"no variant holds the limits: {outcome.reason}",
                where=f"profile {profile.name!r}",
                remedy=outcome.remedy
                or "raise --max-drop, give more --data, or choose a larger profile",
            )
        report = self._report(profile, outcome, outcome.chosen, started)
        self.say(f"{profile.name}: packing {outcome.chosen.name}")
        record = pack(writer.blobs, outcome.chosen.built, self._packing(profile, outcome.chosen))
        return VariantSummary(
            digest=writer.add_variant(record, profile.platform, report).digest,
            report=report,
            unquantized=record.unquantized,
            notes=record.notes,
        )

    def search(
        self,
        profile: Profile,
        rules: Rules,
        forced: Recipe | None,
        base: Bundle | None,
        max_drop: float | None = None,
    ) -> Outcome:
        """Searches one profile's best candidate; what was built and timed before is reused.

        Args:
            profile: The device.
            rules: Its rules for this model.
            forced: The only recipe to try.
            base: A bundle whose recipe and scales are kept if they hold the limits.
            max_drop: Another limit than the request's.
        """
        engines, fixed = targets(profile), self.request.fixed
        names = [target.choice.name for target in engines]
        drop = self.max_drop if max_drop is None else max_drop
        limits = Limits.of(profile, drop, self.source.size_bytes, names)
        decisive = {t.choice.name for t in engines if t.decides(profile, self.machine)}

        def search(workshop: Workshop) -> Search:
            return Search(
                workshop,
                self.stopwatch,
                profile,
                rules,
                engines,
                limits,
                decisive=decisive,
                peak_bytes=self._peak_within(limits.budget_bytes),
                dimensions=self.dimensions,
                fixed=fixed,
                quick_samples=self.quick_samples,
                say=self.say,
                inspect=self._inspector(profile).objection,
                on_device=self._on_device(profile),
            )

        if forced is not None:
            recipe = completed(forced, profile, rules, engines, fixed)
            return search(self.workshop).run_only(recipe)
        if base is None or profile.name not in {variant.profile for variant in base.variants}:
            return search(self.workshop).run()
        kept = self._from_base(base.variant(profile.name), search)
        if kept.chosen is not None:
            return replace(kept, reason=f"recipe and scales of the base; {kept.reason}")
        found = search(self.workshop).run()
        return replace(found, reason=f"{found.reason}; the base's recipe lost: {kept.reason}")

    def _from_base(self, variant: Variant, search: Callable[[Workshop], Search]) -> Outcome:
        """The base's recipe and scales on this source, in a workshop of their own.

        What is built with the base's statistics must not stand in for what a search builds.
        """
        recipe, statistics = variant.record.recipe, base_statistics(variant)
        self.say(f"{variant.profile}: keeping recipe {recipe.name} of the base")
        workshop = self.workshop
        if statistics is not None:
            folder = Path(tempfile.mkdtemp(dir=workshop.folder))
            workshop = Workshop(
                self.source,
                workshop.calibration,
                workshop.evaluation,
                folder,
                metric=workshop.metric,
            )
            workshop.use_statistics(split_steps(recipe), statistics)
        # A base that was forced must hold the limits like any other.
        return search(workshop).run_only(msgspec.structs.replace(recipe, forced=False))

    def _inspector(self, profile: Profile) -> Inspector:
        if profile.name not in self._inspectors:
            self._inspectors[profile.name] = Inspector(profile, self._shapes, self.say)
        return self._inspectors[profile.name]

    @cached_property
    def _shapes(self) -> dict[str, ShapeProfile]:
        """Ranges of input shapes that compilers of engines are told."""
        source = self.source
        given = (step.options.get("max_length") for step in source.preprocess)
        tokens = next((length for length in given if length), MAX_TOKENS)
        calls = (call for sample in self.data.samples for call in sample)
        return shape_profile(
            graph_inputs(source.model), [*calls, *self.calls], tokens if source.tokenizer else None
        )

    def _peak(self, built: Built) -> int:
        if built.path not in self._peaks:
            text = bool(self.source.tokenizer)
            self._peaks[built.path] = candidate_plan(built, self.dimensions, text=text).peak
        return self._peaks[built.path]

    def _resident(self, path: Path, engine: str) -> int:
        """Largest resident memory in a fresh process, which takes a second: once for a file."""
        if path not in self._rss:
            self._rss[path] = peak_rss(path, self.calls[0], engine)
        return self._rss[path]

    def _peak_within(self, budget_bytes: int) -> Callable[[Built], int]:
        """Predicts peaks; where twice the source's fits anyway, the source's stands for all."""
        source = self._peak(self.workshop.source_candidate(SOURCE))
        return self._peak if 2 * source > budget_bytes else lambda built: source

    def _report(
        self, profile: Profile, outcome: Outcome, chosen: Judged, started: float
    ) -> VariantReport:
        self.say(f"{profile.name}: measuring peak memory of {chosen.name}")
        rss = {
            chosen.name: self._resident(chosen.built.path, chosen.built.host_engine),
            "source": self._resident(self.source.path, HOST_ENGINES["onnx"]),
        }
        rows = tuple(_with_rss(row, rss) for row in outcome.rows)
        source = next(row for row in rows if row.name == "source")
        return VariantReport(
            profile=profile.name,
            chosen=chosen.name,
            reason=outcome.reason,
            candidates=rows,
            machine=machine(),
            source_size_bytes=self.source.size_bytes,
            source_latency_ms=source.latency_ms or 0.0,
            threads=self.stopwatch.options.threads,
            decisive=chosen.measured,
            seconds=round(time.monotonic() - started, 1),
            max_drop=self.max_drop,
            data_origin=self.data.origin,
            notes=(
                *self._inspector(profile).notes(chosen.built),
                *measured_on(self.measurer, chosen),
            ),
        )

    def _on_device(self, profile: Profile) -> DeviceTrial | None:
        """Measures finalists on the device that was handed in."""
        if self.measurer is None:
            return None
        name = trial_name(self.name)

        def put(writer: BundleWriter, judged: Judged, version: str) -> VariantRecord:
            packing = self._packing(profile, judged)
            return pack(writer.blobs, judged.built, replace(packing, name=name, version=version))

        return DeviceTrial(self.measurer, put, profile, self.say)

    def _packing(self, profile: Profile, chosen: Judged) -> Packing:
        session = self.workshop.open(chosen.built)
        return Packing(
            source=self.source,
            profile=profile,
            name=self.name,
            version=self.request.version,
            dimensions=self.dimensions,
            provenance=Provenance(
                source_name=self.source.path.name,
                source_digest=self.source.digest,
                data_digest=self.data.digest,
                data_origin=self.data.origin,
                tools={**tools(), **self.source.tools},
                licence=self.source.licence,
            ),
            golden=[(call, session.run(call)) for call in self.calls],
            agreement=self.workshop.agreement(chosen.built),
            shapes=self._shapes,
        )


def _with_rss(row: Candidate, rss: Mapping[str, int]) -> Candidate:
    found = rss.get(row.name)
    return row if found is None else msgspec.structs.replace(row, peak_rss_bytes=found)


def tools() -> dict[str, str]:
    """Versions of what takes part in a conversion."""
    found = {package.name: package.version for package in distributions()}
    return {name: found[name] for name in sorted(TOOLS & found.keys())}
