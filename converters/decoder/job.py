"""One decoder's conversion at work: what its profiles share, and one variant after another.

The counterpart of :class:`converters.job.Job`, behind the same ``variant`` method.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from converters.choose import Judged, Limits
from converters.decoder.adapters import read_adapter
from converters.decoder.base import BaseWeights
from converters.decoder.candidates import Spec, spec_from, specs_for, specs_of
from converters.decoder.memory import memory_plan
from converters.decoder.names import shapes
from converters.decoder.package import TASK, DecoderPacking, pack
from converters.decoder.sampled import sample_documents
from converters.decoder.search import DecoderSearch, OnDevice, Outcome
from converters.decoder.source import DecoderSource
from converters.decoder.speed import Stopwatch
from converters.decoder.texts import Texts, divide, read_texts
from converters.decoder.workshop import DecoderWorkshop
from converters.job import MAX_THREADS, Say, tools
from converters.measure import machine
from converters.on_device import DeviceMeasurer, DeviceTrial, measured_on, trial_name
from converters.recipes import load_recipe
from converters.report import VariantSummary
from converters.request import Request
from converters.target import Target, onnx_engine
from device_profiles.machine import detect_machine
from device_profiles.schema import Profile
from edge_sdk.bundle.measurements import VariantReport
from edge_sdk.bundle.reader import Bundle, Variant
from edge_sdk.bundle.record import MemoryPlan, Provenance, Recipe, VariantRecord
from edge_sdk.bundle.writer import BundleWriter
from edge_sdk.errors import BundleError, ConversionError, DataError, InputError, SourceError
from edge_sdk.runtime.generation.chat_template import Message, render
from edge_sdk.runtime.generation.timing import prompt_of

MAX_DROP = 0.05
# Calibration, and half as much evaluation, read as many tokens as make this many multiplications.
WORK = 3e12
# A larger fp32 graph is not opened beside the others, nor at all if something smaller will do.
LARGE_BYTES = 512 << 20
LEAST_TOKENS, MOST_TOKENS = 4096, 32768


@dataclass(frozen=True)
class Found:
    """A search, and what it found."""

    search: DecoderSearch
    outcome: Outcome


class DecoderJob:
    """One conversion of a decoder: what all of its profiles share.

    Args:
        request: What to do.
        source: The model.
        folder: Where files are written; the caller removes it.
        say: Told what happens.
        measurer: A device that measures the finalists.

    Raises:
        InputError: Data, recipe or chat template is wrong, or an option is for other models.
    """

    def __init__(
        self,
        request: Request,
        source: DecoderSource,
        folder: Path,
        say: Say,
        measurer: DeviceMeasurer | None = None,
    ) -> None:
        _check_options(request)
        _check_template(source)
        if request.recipe is not None:  # wrong ones are refused before the hard work
            spec_from(load_recipe(request.recipe), source.architecture, source.weights)
        self.request = request
        self.measurer = measurer
        self.source = source
        self.say = say
        self.adapters = tuple(
            read_adapter(name, path, source.architecture) for name, path in request.adapters.items()
        )
        self.name = request.name or source.name
        self.machine = detect_machine()
        self.threads = min(MAX_THREADS, self.machine.cores)
        self.max_drop = MAX_DROP if request.max_drop is None else request.max_drop
        self.texts = self._texts()
        self.workshop = DecoderWorkshop(source, self.texts, folder, self.threads, say)
        (float32,) = specs_of("fp32", source.architecture, source.weights)
        large = self.workshop.size(float32) > LARGE_BYTES
        prompt = prompt_of(self.texts.evaluation[0].tolist(), source.generation.context)
        self.stopwatch = Stopwatch(self.workshop, None if large else float32, prompt)
        self._based: dict[bytes, Stopwatch] = {}

    def variant(
        self, profile: Profile, writer: BundleWriter, forced: Recipe | None, base: Bundle | None
    ) -> VariantSummary:
        """Searches, packs and adds one profile's variant."""
        started = time.monotonic()
        found = self._search(profile, forced, base)
        outcome, workshop = found.outcome, found.search.workshop
        if outcome.chosen is None:
            raise ConversionError(
                f"no variant holds the limits: {outcome.reason}",
                where=f"profile {profile.name!r}",
                remedy="raise --max-drop, give more --data, or choose a larger profile",
            )
        report = self._report(profile, found, outcome.chosen, started)
        self.say(f"{profile.name}: packing {outcome.chosen.name}")
        packing = self._packing(profile, workshop, outcome.chosen)
        record = pack(writer.blobs, workshop, outcome.chosen, packing)
        return VariantSummary(
            digest=writer.add_variant(record, profile.platform, report).digest,
            report=report,
            unquantized=record.unquantized,
            notes=record.notes,
        )

    def _search(self, profile: Profile, forced: Recipe | None, base: Bundle | None) -> Found:
        source = self.source
        if forced is not None:
            spec = spec_from(forced, source.architecture, source.weights)
            search = self._searcher(profile, self.workshop, self.stopwatch)
            return Found(search, search.run_only(spec, "forced by the recipe"))
        lost = ""
        if base is not None and profile.name in {variant.profile for variant in base.variants}:
            kept = self._from_base(profile, base.variant(profile.name))
            if kept.outcome.chosen is not None:
                return kept
            lost = f"; the base's recipe lost: {kept.outcome.reason}"
        specs = specs_for(profile, source.architecture, source.weights)
        search = self._searcher(profile, self.workshop, self.stopwatch)
        outcome = search.run(specs)
        return Found(search, replace(outcome, reason=outcome.reason + lost))

    def _from_base(self, profile: Profile, variant: Variant) -> Found:
        """The base's recipe on this source, with the base's blocks where nothing changed."""
        if variant.record.kind != "decoder":
            raise InputError("the base is no dialogue model", where="--base")
        source, recipe = self.source, variant.record.recipe
        _check_shape(source, variant)
        self.say(f"{profile.name}: keeping recipe {recipe.name} of the base")
        # Profiles whose variants are of the same blobs share the work.
        key = msgspec.msgpack.encode((recipe, variant.record.graphs, variant.record.files))
        stopwatch = self._based.get(key) or self._stopwatch_over(variant)
        self._based[key] = stopwatch
        # A base that was forced must hold the limits like any other.
        spec = replace(spec_from(recipe, source.architecture, source.weights), forced=False)
        search = self._searcher(profile, stopwatch.workshop, stopwatch)
        return Found(search, search.run_only(spec, "recipe of the base, and its unchanged blocks"))

    def _stopwatch_over(self, variant: Variant) -> Stopwatch:
        """A workshop of its own for a base's variant, and what times it."""
        source = self.source
        workshop = DecoderWorkshop(
            replace(source, weights=BaseWeights(source.weights, source.architecture, variant)),
            self.texts,
            Path(tempfile.mkdtemp(dir=self.workshop.folder)),
            self.threads,
            self.say,
            self.workshop.reference,
        )
        return Stopwatch(workshop, self.stopwatch.baseline, self.stopwatch.prompt)

    def _searcher(
        self, profile: Profile, workshop: DecoderWorkshop, stopwatch: Stopwatch
    ) -> DecoderSearch:
        return DecoderSearch(
            workshop,
            stopwatch,
            profile,
            Limits.of(profile, self.max_drop, self.source.size_bytes),
            decisive=Target(onnx_engine(profile), "onnx").decides(profile, self.machine),
            memory=self._memory,
            say=self.say,
            on_device=self._on_device(profile, workshop),
        )

    def _on_device(self, profile: Profile, workshop: DecoderWorkshop) -> OnDevice | None:
        """Measures candidates on the device that was handed in."""
        measurer = self.measurer
        if measurer is None:
            return None

        def measure(specs: Mapping[str, Spec], candidates: Sequence[Judged]) -> list[Judged]:
            name = trial_name(self.name)

            def put(writer: BundleWriter, judged: Judged, version: str) -> VariantRecord:
                spec = specs[judged.name]
                packing = self._packing(profile, workshop, spec)
                packing = replace(packing, name=name, version=version)
                return pack(writer.blobs, workshop, spec, packing)

            return DeviceTrial(measurer, put, profile, self.say)(candidates)

        return measure

    def _memory(self, spec: Spec) -> MemoryPlan:
        return memory_plan(self.source.architecture, spec.plan)

    def _texts(self) -> Texts:
        """The user's text, or the model's own."""
        limit = _affordable_tokens(self.source)
        if self.request.data is not None:
            return read_texts(self.source, self.request.data, limit, limit // 2)
        self.say("sampling text from the model itself: perplexity will say less than on your data")
        documents = sample_documents(self.source, 2 * LEAST_TOKENS, self.threads)
        return divide(documents, "generated", self.source.generation.context, limit, limit // 2)

    def _report(
        self, profile: Profile, found: Found, chosen: Spec, started: float
    ) -> VariantReport:
        outcome, stopwatch = found.outcome, found.search.stopwatch
        _, judged = found.search.judged[chosen.name]
        baseline = stopwatch.baseline
        source_ms = stopwatch.time([baseline])[0].answer_ms if baseline else 0.0
        return VariantReport(
            profile=profile.name,
            chosen=chosen.name,
            reason=outcome.reason,
            candidates=outcome.rows,
            machine=machine(),
            source_size_bytes=self.source.size_bytes,
            source_latency_ms=round(source_ms, 3),
            threads=1,
            decisive=judged.measured,
            seconds=round(time.monotonic() - started, 1),
            max_drop=self.max_drop,
            data_origin=self.texts.origin,
            notes=measured_on(self.measurer, judged),
        )

    def _packing(self, profile: Profile, workshop: DecoderWorkshop, chosen: Spec) -> DecoderPacking:
        return DecoderPacking(
            profile=profile,
            name=self.name,
            version=self.request.version,
            provenance=Provenance(
                source_name=self.source.path.name,
                source_digest=self.source.digest,
                data_digest=self.texts.digest,
                data_origin=self.texts.origin,
                tools=tools(),
                licence=self.source.licence,
            ),
            agreement=workshop.agreement(chosen),
            max_drop=self.max_drop,
            memory=self._memory(chosen),
            adapters=self.adapters,
        )


def _check_options(request: Request) -> None:
    """Refuses what other kinds of models are converted with."""
    given = {"--metric": request.metric, "--state": request.states, "--fix": request.fixed}
    for option, value in given.items():
        if value is not None:
            raise InputError(
                "a dialogue model has no use for it",
                where=option,
                remedy="leave it out: perplexity on --data decides",
            )
    if request.task not in (None, TASK):
        raise InputError(
            f"a dialogue model is for {TASK}, not for {request.task}",
            where="--task",
            remedy="leave it out",
        )


def _check_template(source: DecoderSource) -> None:
    """Refuses a template that would fail at every prompt on every device."""
    try:
        render(source.generation, [Message("user", "hi")])
    except DataError:
        pass  # it wants other messages
    except BundleError as error:
        raise SourceError(
            f"{error.where}: {error.message}",
            where=str(source.path),
            remedy="correct the template, or remove it",
        ) from error


def _check_shape(source: DecoderSource, base: Variant) -> None:
    """Refuses a base that is no other version of the same model."""
    for field in ("layers", "kv_heads", "head_dim"):
        ours, theirs = (getattr(of.generation, field) for of in (source, base.record))
        if ours != theirs:
            raise InputError(
                f"the base is another model: {field} = {theirs} instead of {ours}",
                where="--base",
                remedy="leave it out, or keep its recipe alone with --recipe",
            )


def _affordable_tokens(source: DecoderSource) -> int:
    """Tokens to calibrate on, and to evaluate on; by the model's size and not by the clock."""
    weights = sum(math.prod(shape) for shape in shapes(source.architecture).values())
    return int(min(MOST_TOKENS, max(LEAST_TOKENS, WORK / weights)))
