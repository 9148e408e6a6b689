"""One encoder-decoder model's conversion: a search for each graph, then a choice of both.

The counterpart of :class:`converters.job.Job`, behind the same ``variant`` method. Each graph
is searched like any other model, against its own outputs; what that finds is then judged by
what both write together, which alone counts. Where two good halves make a whole that is not,
the halves are searched once more with a stricter limit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import msgspec

from converters.choose import Judged, Limits, choose, objection, standing
from converters.dataset import Dataset
from converters.job import DEFAULT_MAX_DROP, MAX_THREADS, Job, Say, tools
from converters.materialize import open_path
from converters.measure import machine
from converters.metrics import Metric
from converters.on_device import (
    DeviceMeasurer,
    DeviceTrial,
    measure_finalists,
    measured_on,
    trial_name,
)
from converters.outcome import Outcome
from converters.recipes import SOURCE
from converters.report import VariantSummary
from converters.request import Request
from converters.seq2seq.examples import examples
from converters.seq2seq.forced import network_of
from converters.seq2seq.judge import Both, Judge
from converters.seq2seq.package import Seq2SeqPacking, memory_plan, pack
from converters.seq2seq.pairs import read_pairs
from converters.seq2seq.source import Seq2SeqSource
from converters.seq2seq.target import on_onnx, rules_of
from converters.source import Source
from converters.workshop import Built
from device_profiles.machine import detect_machine
from device_profiles.schema import Profile
from edge_sdk.bundle.measurements import Candidate, VariantReport
from edge_sdk.bundle.reader import Bundle
from edge_sdk.bundle.record import MemoryPlan, Provenance, Recipe, VariantRecord
from edge_sdk.bundle.writer import BundleWriter
from edge_sdk.errors import ConversionError, InputError
from edge_sdk.runtime.engine import SessionOptions
from edge_sdk.runtime.seq2seq.network import DECODER, ENCODER

# Shares of the limit that the halves are searched with, in turn.
STRICTNESS = (1.0, 0.25, 0.05)


class Seq2SeqJob:
    """One conversion of an encoder-decoder model: what all of its profiles share.

    Args:
        request: What to do.
        source: The model.
        metric: Task metric, where the user named one.
        folder: Where files are written; the caller removes it.
        say: Told what happens.
        measurer: A device that measures the finalists.

    Raises:
        InputError: Data are wrong, or an option is for other models.
    """

    def __init__(
        self,
        request: Request,
        source: Seq2SeqSource,
        metric: Metric | None,
        folder: Path,
        say: Say,
        measurer: DeviceMeasurer | None = None,
    ) -> None:
        _check_options(request, source)
        self.request = request
        self.measurer = measurer
        self.source = source
        self.say = say
        self.name = request.name or source.name
        default = metric.max_drop if metric else DEFAULT_MAX_DROP
        self.max_drop = default if request.max_drop is None else request.max_drop
        self.pairs = read_pairs(source, request.data)
        say("letting the source read and write")
        threads = min(MAX_THREADS, detect_machine().cores)
        options = SessionOptions(threads=threads)
        reads, writes = (open_path(s.path, options) for s in (source.encoder, source.decoder))
        self.network = network_of(reads, writes, source.decoder.states)
        self.examples = examples(source, self.network, self.pairs)
        self.jobs = {
            ENCODER: self._job(source.encoder, self.examples.encoder, folder / ENCODER),
            DECODER: self._job(source.decoder, self.examples.decoder, folder / DECODER),
        }
        self.judge = Judge(source, self.examples, metric, threads)

    def variant(
        self, profile: Profile, writer: BundleWriter, forced: Recipe | None, base: Bundle | None
    ) -> VariantSummary:
        """Searches, packs and adds one profile's variant."""
        started = time.monotonic()
        search = PairSearch(self, on_onnx(profile), forced, base)
        both = search.run()
        if both is None:
            raise ConversionError(
                f"no variant holds the limits: {search.reason}",
                where=f"profile {profile.name!r}",
                remedy="raise --max-drop, give more --data, or choose a larger profile",
            )
        self.say(f"{profile.name}: packing {both.name}")
        record = self._pack(writer, both, self._packing(profile, both))
        report = VariantReport(
            profile=profile.name,
            chosen=both.name,
            reason=search.reason,
            candidates=search.rows(both),
            machine=machine(),
            source_size_bytes=self.source.size_bytes,
            source_latency_ms=round(search.source_ms, 3),
            threads=1,
            decisive=search.judged[both.name].measured,
            seconds=round(time.monotonic() - started, 1),
            max_drop=self.max_drop,
            data_origin=self.pairs.origin,
            notes=measured_on(self.measurer, search.judged[both.name]),
        )
        return VariantSummary(
            digest=writer.add_variant(record, profile.platform, report).digest,
            report=report,
            unquantized=record.unquantized,
            notes=record.notes,
        )

    def memory(self, both: Both) -> MemoryPlan:
        """Predicted peak memory of both graphs."""
        return memory_plan(both, self._dimensions(), self.network)

    def trial(self, profile: Profile, pairs: Mapping[str, Both]) -> DeviceTrial | None:
        """Measures pairs, by their names, on the device that was handed in."""
        if self.measurer is None:
            return None
        name = trial_name(self.name)

        def put(writer: BundleWriter, judged: Judged, version: str) -> VariantRecord:
            both = pairs[judged.name]
            packing = replace(self._packing(profile, both), name=name, version=version)
            return self._pack(writer, both, packing)

        return DeviceTrial(self.measurer, put, profile, self.say)

    def _pack(self, writer: BundleWriter, both: Both, packing: Seq2SeqPacking) -> VariantRecord:
        sessions = {
            name: open_path(judged.built.path, SessionOptions())
            for name, judged in ((ENCODER, both.encoder), (DECODER, both.decoder))
        }
        return pack(writer.blobs, both, sessions, packing)

    def _dimensions(self) -> dict[str, dict[str, int]]:
        return {name: dict(job.dimensions) for name, job in self.jobs.items()}

    def _job(self, source: Source, data: Dataset, folder: Path) -> Job:
        folder.mkdir()
        request = replace(self.request, max_drop=self.max_drop, metric=None)
        return Job(request, source, data, None, folder, self.say)

    def _packing(self, profile: Profile, both: Both) -> Seq2SeqPacking:
        return Seq2SeqPacking(
            source=self.source,
            profile=profile,
            name=self.name,
            version=self.request.version,
            provenance=Provenance(
                source_name=self.source.path.name,
                source_digest=self.source.digest,
                data_digest=self.pairs.digest,
                data_origin=self.pairs.origin,
                tools=tools(),
                licence=self.source.licence,
            ),
            agreement=self.judge.agreement(both),
            memory=self.memory(both),
            dimensions=self._dimensions(),
            context=self.request.context,
            call=self.examples.forced.samples[0][0],
        )


class PairSearch:
    """The search for one profile's candidates, one for each graph.

    Args:
        job: The conversion.
        profile: The device, with the engine that runs both graphs.
        forced: The only recipe to try, for both graphs.
        base: A bundle whose recipes are kept if they hold the limits.

    Attributes:
        judged: Pair's name -> what decides about it.
        reason: Why the choice was made, or which limit failed by how much.
        source_ms: The source's time to read and write.
    """

    def __init__(
        self, job: Seq2SeqJob, profile: Profile, forced: Recipe | None, base: Bundle | None
    ) -> None:
        self.job = job
        self.profile = profile
        self.forced = forced
        self.kept = _recipes_of(base, profile)
        self.limits = Limits.of(profile, job.max_drop, job.source.size_bytes)
        self.judged: dict[str, Judged] = {}
        self.pairs: dict[str, Both] = {}
        self.halves: dict[str, Outcome] = {}
        self.reason = ""
        self.source_ms = 0.0

    def run(self) -> Both | None:
        """The best pair that holds the limits."""
        for share in STRICTNESS if self.forced is None else STRICTNESS[:1]:
            found = self._search(share * self.job.max_drop)
            if found is None:
                continue
            both = Both(*found)
            self._judge([Both(*self._sources()), both])
            if self.forced is not None or self._ships(both):
                break
            self._judge(list(self._mixed(both)))
        trial = self.job.trial(self.profile, self.pairs)
        if trial is not None:
            measure_finalists(self.judged, self.limits, SOURCE.name, trial)
        best, self.reason = choose(list(self.judged.values()), self.limits)
        if self.forced is not None and self.pairs:
            self.reason = "forced by the recipe"
            return next(reversed(self.pairs.values()))
        return None if best is None else self.pairs[best.name]

    def rows(self, chosen: Both) -> tuple[Candidate, ...]:
        """The table: pairs first, then each graph's own candidates."""
        rows = [self._row(both, both.name == chosen.name) for both in self.pairs.values()]
        rows.sort(key=lambda row: (row.status != "chosen", row.status, row.name))
        halves = (
            _half(graph, row) for graph, outcome in self.halves.items() for row in outcome.rows
        )
        return (*rows, *halves)

    def _search(self, max_drop: float) -> tuple[Judged, Judged] | None:
        """The best candidate for each graph by itself."""
        found = []
        for graph, job in self.job.jobs.items():
            forced, rules = self.forced or self.kept.get(graph), rules_of(self.profile, graph)
            self.job.say(f"{self.profile.name}: {graph}")
            if forced == SOURCE:  # as the base has it
                only = msgspec.structs.replace(rules, recipes=())
                outcome = job.search(self.profile, only, None, None, max_drop)
            else:
                outcome = job.search(self.profile, rules, forced, None, max_drop)
            if outcome.chosen is None and self.kept:
                outcome = job.search(self.profile, rules, None, None, max_drop)
            self.halves[graph] = outcome
            if outcome.chosen is None:
                self.reason = f"{graph}: {outcome.reason}"
                return None
            found.append(outcome.chosen)
        return found[0], found[1]

    def _sources(self) -> tuple[Judged, Judged]:
        """The source's own graphs."""
        encoder, decoder = (_source_of(job, self.halves[g]) for g, job in self.job.jobs.items())
        return encoder, decoder

    def _mixed(self, both: Both) -> Iterator[Both]:
        """Each half of a pair beside the source's other half."""
        encoder, decoder = self._sources()
        yield Both(both.encoder, decoder)
        yield Both(encoder, both.decoder)

    def _judge(self, pairs: list[Both]) -> None:
        """Compares and times pairs that were not judged before."""
        fresh = [both for both in pairs if both.name not in self.pairs]
        fresh = list({both.name: both for both in fresh}.values())
        if not fresh:
            return
        self.job.say(f"{self.profile.name}: judging {', '.join(both.name for both in fresh)}")
        times = self.job.judge.latencies([both for both in fresh if both.name != SOURCE.name])
        self.source_ms = self.source_ms or times[SOURCE.name].median_ms
        for both in fresh:
            measured = both.encoder.measured and both.decoder.measured
            latency = times[both.name]
            self.pairs[both.name] = both
            self.judged[both.name] = Judged(
                _as_built(both),
                self.job.judge.agreement(both),
                speedup=latency.speedup if measured else self._predicted(both),
                measured=measured,
                peak_bytes=self._peak(both),
                latency_ms=round(latency.median_ms, 3),
            )

    def _predicted(self, both: Both) -> float:
        """From the halves' own, by the share of the time that each takes in the source."""
        share = self.job.judge.encoder_share
        return 1 / (share / both.encoder.speedup + (1 - share) / both.decoder.speedup)

    def _peak(self, both: Both) -> int:
        """With a past of all tokens that the model writes by default, in two buffers."""
        plan, decoding = self.job.memory(both), self.job.source.decoding
        tokens = min(decoding.max_length or decoding.context, decoding.context)
        return plan.peak + 2 * tokens * plan.kv_per_token

    def _ships(self, both: Both) -> bool:
        """Whether a pair holds the limits and is worth more than the source."""
        best, _ = choose([self.judged[SOURCE.name], self.judged[both.name]], self.limits)
        return best is not None and best.name == both.name

    def _row(self, both: Both, is_chosen: bool) -> Candidate:
        judged = self.judged[both.name]
        status, why = "chosen", self.reason
        if not is_chosen:
            status, why = standing(judged, self.limits, objection(judged, self.limits))
        row = Candidate(
            name=both.name,
            status=status,
            reason=why,
            size_bytes=both.size_bytes,
            agreement=judged.agreement,
            latency_ms=judged.latency_ms,
            decoder=self.job.judge.decoder_figures(both),
            device=judged.device,
        )
        if judged.measured:
            return msgspec.structs.replace(row, speedup=round(judged.speedup, 3))
        return msgspec.structs.replace(row, predicted_speedup=round(judged.speedup, 3))


def _half(graph: str, row: Candidate) -> Candidate:
    """A graph's own candidate as a row; what is chosen is a pair."""
    status = "qualified" if row.status == "chosen" else row.status
    return msgspec.structs.replace(row, name=f"{graph}: {row.name}", status=status)


def _as_built(both: Both) -> Built:
    """A pair in the form in which single candidates are chosen from."""
    encoder, decoder = both.encoder.built, both.decoder.built
    recipe = msgspec.structs.replace(
        encoder.recipe, name=both.name, steps=(*encoder.recipe.steps, *decoder.recipe.steps)
    )
    return Built(recipe, encoder.path, both.size_bytes)


def _source_of(job: Job, outcome: Outcome) -> Judged:
    """The source's own graph as a candidate."""
    chosen = outcome.chosen
    assert chosen is not None
    if not chosen.built.recipe.steps:
        return chosen
    built = job.workshop.source_candidate(
        msgspec.structs.replace(SOURCE, engine=chosen.built.recipe.engine)
    )
    return replace(
        chosen, built=built, agreement=job.workshop.agreement(built), speedup=1.0, latency_ms=None
    )


def _recipes_of(base: Bundle | None, profile: Profile) -> dict[str, Recipe]:
    """Graph -> recipe of the base's variant, where it has one for this profile."""
    if base is None or profile.name not in {variant.profile for variant in base.variants}:
        return {}
    decoding = base.variant(profile.name).record.decoding
    if decoding is None:
        raise InputError("the base is no encoder-decoder model", where="--base")
    return {
        graph: msgspec.structs.replace(recipe, forced=False)
        for graph, recipe in decoding.recipes.items()
    }


def _check_options(request: Request, source: Seq2SeqSource) -> None:
    """Refuses what other kinds of models are converted with."""
    given = {"--state": request.states, "--fix": request.fixed, "--adapter": request.adapters}
    for option, value_ in given.items():
        if value_:
            raise InputError(
                "an encoder-decoder model has no use for it", where=option, remedy="leave it out"
            )
    longest = source.decoding.context
    if request.context is not None and request.context > longest:
        raise InputError(
            f"{request.context:,} tokens, the model writes {longest:,}",
            where="--context",
            remedy=f"give at most {longest}, or leave it out",
        )
