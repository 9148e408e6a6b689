"""One decoder's conversion at work: what its profiles share, and one variant after another.

The counterpart of :class:`converters.job.Job`, behind the same ``variant`` method.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import msgspec

from converters.choose import Limits, measurable
from converters.decoder.candidates import Spec, spec_from, specs_for, specs_of
from converters.decoder.memory import memory_plan
from converters.decoder.names import shapes
from converters.decoder.package import DecoderPacking, pack
from converters.decoder.sampled import sample_documents
from converters.decoder.search import DecoderSearch, Outcome
from converters.decoder.source import DecoderSource
from converters.decoder.speed import Stopwatch, footprint, prompt_of
from converters.decoder.texts import Texts, divide, read_texts
from converters.decoder.workshop import DecoderWorkshop
from converters.job import MAX_THREADS, Say, tools
from converters.measure import machine
from converters.report import VariantSummary
from converters.request import Request
from device_profiles.machine import detect_machine
from device_profiles.schema import Profile
from edge_sdk.bundle.measurements import VariantReport
from edge_sdk.bundle.reader import Bundle
from edge_sdk.bundle.record import MemoryPlan, Provenance, Recipe
from edge_sdk.bundle.writer import BundleWriter
from edge_sdk.errors import ConversionError

MAX_DROP = 0.05
# Calibration, and half as much evaluation, read as many tokens as make this many multiplications.
WORK = 3e12
# A larger fp32 graph is not opened beside the others, nor at all if something smaller will do.
LARGE_BYTES = 512 << 20
LEAST_TOKENS, MOST_TOKENS = 4096, 32768


class DecoderJob:
    """One conversion of a decoder: what all of its profiles share.

    Args:
        request: What to do.
        source: The model.
        folder: Where files are written; the caller removes it.
        say: Told what happens.
    """

    def __init__(self, request: Request, source: DecoderSource, folder: Path, say: Say) -> None:
        self.request = request
        self.source = source
        self.say = say
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

    def variant(
        self, profile: Profile, writer: BundleWriter, forced: Recipe | None, base: Bundle | None
    ) -> VariantSummary:
        """Searches, packs and adds one profile's variant."""
        started = time.monotonic()
        decisive = measurable(profile, self.machine)
        outcome = self._search(profile, decisive, forced)
        if outcome.chosen is None:
            raise ConversionError(
                f"no variant holds the limits: {outcome.reason}",
                where=f"profile {profile.name!r}",
                remedy="raise --max-drop, give more --data, or choose a larger profile",
            )
        report = self._report(profile, outcome, outcome.chosen, decisive, started)
        self.say(f"{profile.name}: packing {outcome.chosen.name}")
        record = pack(
            writer.blobs, self.workshop, outcome.chosen, self._packing(profile, outcome.chosen)
        )
        return VariantSummary(
            digest=writer.add_variant(record, profile.platform, report).digest,
            report=report,
            unquantized=record.unquantized,
            notes=record.notes,
        )

    def _search(self, profile: Profile, decisive: bool, forced: Recipe | None) -> Outcome:
        source = self.source
        search = DecoderSearch(
            self.workshop,
            self.stopwatch,
            profile,
            Limits.of(profile, self.max_drop, source.size_bytes),
            decisive=decisive,
            memory=self._memory,
            say=self.say,
        )
        if forced is not None:
            spec = spec_from(forced, source.architecture, source.weights)
            return search.run_only(spec, "forced by the recipe")
        rules = profile.quantization["decoder"]
        return search.run(specs_for(rules, source.architecture, source.weights))

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
        self, profile: Profile, outcome: Outcome, chosen: Spec, decisive: bool, started: float
    ) -> VariantReport:
        self.say(f"{profile.name}: measuring peak memory of {chosen.name}")
        built = self.workshop.build(chosen)
        peak = footprint(built.path, self.source.generation, self.stopwatch.prompt, 1)
        rows = tuple(
            msgspec.structs.replace(row, peak_rss_bytes=peak.peak_rss_bytes)
            if row.status == "chosen"
            else row
            for row in outcome.rows
        )
        baseline = self.stopwatch.baseline
        return VariantReport(
            profile=profile.name,
            chosen=chosen.name,
            reason=outcome.reason,
            candidates=rows,
            machine=machine(),
            source_size_bytes=self.source.size_bytes,
            source_latency_ms=round(self.stopwatch.time([baseline])[0].answer_ms, 3)
            if baseline
            else 0.0,
            threads=1,
            decisive=decisive,
            seconds=round(time.monotonic() - started, 1),
            max_drop=self.max_drop,
            data_origin=self.texts.origin,
        )

    def _packing(self, profile: Profile, chosen: Spec) -> DecoderPacking:
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
            agreement=self.workshop.agreement(self.workshop.build(chosen)),
            memory=self._memory(chosen),
        )


def _affordable_tokens(source: DecoderSource) -> int:
    """Tokens to calibrate on, and to evaluate on; by the model's size and not by the clock."""
    weights = sum(math.prod(shape) for shape in shapes(source.architecture).values())
    return int(min(MOST_TOKENS, max(LEAST_TOKENS, WORK / weights)))
