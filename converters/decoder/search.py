"""The search for one profile's decoder: build, score, time, mix where needed, choose.

GPTQ comes last and only to formats that could still win: a format's value without
any loss bounds what rounding it better can bring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import msgspec

from converters.choose import Judged, Limits, choose, is_slower, objection, value
from converters.compare import rounded
from converters.decoder import sensitivity
from converters.decoder.candidates import Spec
from converters.decoder.speed import Speed, Stopwatch, format_of
from converters.decoder.workshop import DecoderWorkshop
from converters.on_device import measure_finalists
from device_profiles.schema import Profile
from edge_sdk.bundle.measurements import Candidate, DecoderFigures
from edge_sdk.bundle.record import MemoryPlan
from edge_sdk.errors import EdgeSdkError

# A decoder that has no room for this much text is of no use.
LEAST_CONTEXT = 512
Say = Callable[[str], None]
OnDevice = Callable[[Mapping[str, Spec], Sequence[Judged]], list[Judged]]


@dataclass(frozen=True)
class Outcome:
    """What a search found.

    Attributes:
        chosen: The winner, or ``None`` if nothing holds the limits.
        reason: Why it won, or which limit failed by how much.
        rows: The table of all candidates.
    """

    chosen: Spec | None
    reason: str
    rows: tuple[Candidate, ...]


class DecoderSearch:
    """Searches one profile's best variant of a decoder.

    Args:
        workshop: Builds and scores candidates; shared between profiles.
        stopwatch: Times them; shared between profiles.
        profile: The device.
        limits: What a candidate must hold.
        decisive: Whether speed measured here decides.
        memory: Predicts a candidate's memory on the device.
        say: Told what happens.
        on_device: Judges candidates by what a real device measures.
    """

    def __init__(
        self,
        workshop: DecoderWorkshop,
        stopwatch: Stopwatch,
        profile: Profile,
        limits: Limits,
        *,
        decisive: bool,
        memory: Callable[[Spec], MemoryPlan],
        say: Say,
        on_device: OnDevice | None = None,
    ) -> None:
        self.workshop = workshop
        self.stopwatch = stopwatch
        self.profile = profile
        self.limits = limits
        self.decisive = decisive
        self.memory = memory
        self.say = say
        self.on_device = on_device
        self.judged: dict[str, tuple[Spec, Judged]] = {}
        self.others: list[Candidate] = []

    def run(self, specs: Sequence[Spec]) -> Outcome:
        """Tries all candidates and chooses among them."""
        fitting = [spec for spec in specs if self._fits(spec)]
        if specs and not fitting:
            least = min(specs, key=lambda spec: self.memory(spec).peak).name
            row = next(row for row in self.others if row.name == least)
            return Outcome(None, f"closest is {least}: {row.reason}", tuple(self.others))
        # fp32 as a last resort, where it is too large for the baseline of all.
        last = [s for s in fitting if s.family == "fp32" and self.stopwatch.baseline is None]
        late = [s for s in fitting if s.method == "gptq"]
        self._judge(spec for spec in fitting if spec not in (*last, *late))
        self._calibrated(late)
        self._rescue()
        if not self._best():
            self._judge(last)
        else:
            for spec in last:
                self._leave_out(spec, "rejected", "not tried: it is large, and a smaller one holds")
        self._ask_device()
        return self._settle()

    def _calibrated(self, specs: Sequence[Spec]) -> None:
        """Judges candidates that cost a calibration, the most promising first."""
        for spec in sorted(specs, key=self._bound, reverse=True):
            bound = self._bound(spec)
            if bound > self._best():
                self._judge([spec])
            else:
                why = f"not calibrated: at best value {bound:.2f}, even without any loss"
                self._leave_out(spec, "rejected", why)

    def run_only(self, spec: Spec, reason: str) -> Outcome:
        """Measures one candidate; a forced one ships whatever it is like."""
        self._judge([spec])
        if not self.judged:
            return Outcome(None, self.others[-1].reason, tuple(self.others))
        baseline = self.stopwatch.baseline
        if self.on_device is not None and baseline is not None and self._fits(baseline):
            self._judge([baseline])  # what the device's figures are ratios to
        self._ask_device()
        judged = self.judged[spec.name][1]
        problem = None if spec.forced else self._problem(judged)
        rows = [self._row(judged, spec, is_chosen=problem is None, reason=reason)]
        rows += [
            self._row(other, own, is_chosen=False, reason="")
            for own, other in self.judged.values()
            if own != spec
        ]
        return Outcome(None if problem else spec, problem or reason, (*rows, *self.others))

    def _rescue(self) -> None:
        """Mixes the format that would win if it did not lose too much."""
        lossy = [
            (spec, judged)
            for spec, judged in self.judged.values()
            if judged.agreement.drop > self.limits.max_drop and spec.plan.default.bits == 4
        ]
        leader = max(lossy, key=lambda e: (self._promise(e[1]), -e[1].agreement.drop), default=None)
        if leader is None or self._promise(leader[1]) <= self._best():
            return
        spec, judged = leader
        precise = sensitivity.precise_format(
            self.profile.quantization["decoder"], spec.plan.default
        )
        self.say(f"{self.profile.name}: measuring sensitivity of {spec.name}")
        ranked = sensitivity.measure(self.workshop, spec)
        drop, max_drop = judged.agreement.drop, self.limits.max_drop
        for mixed in sensitivity.mixtures(spec, ranked, precise, drop, max_drop):
            if self._fits(mixed):
                self._judge([mixed])
                found = self.judged.get(mixed.name)
                if found and found[1].agreement.drop <= max_drop:
                    return

    def _promise(self, judged: Judged) -> float:
        """A candidate's value if it lost just what is allowed."""
        return value(judged, self.limits, drop=self.limits.max_drop)

    def _fits(self, spec: Spec) -> bool:
        plan = self.memory(spec)
        peak, budget = _peak(self.workshop, plan), self.limits.budget_bytes
        if peak <= budget:
            return True
        why = f"peak memory {peak / 2**20:.0f} MiB exceeds the budget of {budget / 2**20:.0f} MiB"
        self._leave_out(spec, "rejected", why)
        return False

    def _judge(self, specs: Iterable[Spec]) -> None:
        if not (scored := [spec for spec in specs if self._scores(spec)]):
            return
        self.say(f"{self.profile.name}: timing {', '.join(spec.name for spec in scored)}")
        for spec, time in zip(scored, self.stopwatch.time(scored), strict=True):
            self.judged[spec.name] = (
                spec,
                Judged(
                    built=self.workshop.candidate(spec),
                    agreement=self.workshop.agreement(spec),
                    speedup=self._speedup(spec, time),
                    measured=self.decisive,
                    peak_bytes=_peak(self.workshop, self.memory(spec)),
                    latency_ms=round(time.answer_ms, 3),
                ),
            )

    def _scores(self, spec: Spec) -> bool:
        """Builds and scores a candidate; one that fails is a row in the report."""
        try:
            self.workshop.scores(spec)
        except EdgeSdkError as error:
            if spec.forced:
                raise
            self._leave_out(spec, "failed", error.message)
            return False
        if not self.stopwatch.needs(spec):
            self.workshop.release(spec)
        return True

    def _speedup(self, spec: Spec, time: Speed) -> float:
        """Over fp32; where that is too large to be timed, by what the profile expects."""
        expected = self.profile.speedups
        if spec.family == "fp32":
            return 1.0
        if not self.decisive:
            return expected.get(spec.family, 1.0)
        first = self.stopwatch.reference
        return time.speedup * (expected.get(first.family, 1.0) if first else 1.0)

    def _bound(self, spec: Spec) -> float:
        """A format's value if rounding lost nothing, from a sibling that was timed."""
        wanted = spec.plan.default
        for other, judged in self.judged.values():
            if (other.plan.default.bits, other.plan.default.block_size) == (
                wanted.bits,
                wanted.block_size,
            ):
                return value(judged, self.limits, drop=0.0)
        return float("inf")

    def _best(self) -> float:
        allowed = [j for _, j in self.judged.values() if objection(j, self.limits) is None]
        return max((value(j, self.limits) for j in allowed if not is_slower(j)), default=0.0)

    def _settle(self) -> Outcome:
        best, reason = choose([judged for _, judged in self.judged.values()], self.limits)
        rows = [
            self._row(judged, spec, is_chosen=judged is best, reason=reason)
            for spec, judged in self.judged.values()
        ]
        chosen = None if best is None else self.judged[best.name][0]
        return Outcome(chosen, reason, (*rows, *self.others))

    def _problem(self, judged: Judged) -> str | None:
        """Why a candidate of the base may not ship; how fast it is only a device may say."""
        found = objection(judged, self.limits)
        if found is None and judged.device is not None and is_slower(judged):
            found = f"slower than fp32 on the device: {judged.speedup:.2f}x"
        return found

    def _ask_device(self) -> None:
        """Lets a device measure the best candidate of each of the best formats.

        How weights were rounded changes no speed, so what it says of one is true of its format.
        """
        if self.on_device is None:
            return
        measure = partial(self.on_device, {name: spec for name, (spec, _) in self.judged.items()})
        ranked = sorted(
            self.judged.values(),
            key=lambda e: (objection(e[1], self.limits) is not None, -value(e[1], self.limits)),
        )
        best: dict[str, Judged] = {}
        for spec, judged in ranked:
            best.setdefault(format_of(spec), judged)
        contest = {judged.name: judged for judged in best.values()}
        measure_finalists(contest, self.limits, "fp32", measure)
        for name, (spec, judged) in self.judged.items():
            found = contest[best[format_of(spec)].name]
            if found.device is not None:
                self.judged[name] = (
                    spec,
                    replace(found, built=judged.built, agreement=judged.agreement),
                )

    def _row(self, judged: Judged, spec: Spec, *, is_chosen: bool, reason: str) -> Candidate:
        problem = objection(judged, self.limits)
        if is_chosen:
            status, why = "chosen", reason
        elif problem:
            status, why = "rejected", problem
        elif is_slower(judged):
            status, why = "rejected", f"slower than fp32: {judged.speedup:.2f}x"
        else:
            status, why = "qualified", f"value {value(judged, self.limits):.2f}"
        time = self.stopwatch.time([spec])[0]
        there = judged.device if judged.device and not judged.device.error else None
        rate = (there and there.tokens_per_second) or 1e3 / time.step_ms
        first = (there and there.ttft_ms) or time.ttft_ms
        row = Candidate(
            name=spec.name,
            status=status,
            reason=why,
            size_bytes=judged.built.size_bytes,
            agreement=judged.agreement,
            latency_ms=judged.latency_ms,
            peak_rss_bytes=there.peak_rss_bytes if there else time.peak_rss_bytes,
            decoder=DecoderFigures(
                perplexity=rounded(self.workshop.scores(spec).perplexity),
                source_perplexity=rounded(self.workshop.reference.perplexity),
                tokens_per_second=round(rate, 2),
                ttft_ms=round(first, 2),
                prompt_tokens=len(self.stopwatch.prompt),
            ),
            device=judged.device,
        )
        if judged.measured and self.stopwatch.baseline:
            return msgspec.structs.replace(row, speedup=round(judged.speedup, 3))
        return msgspec.structs.replace(row, predicted_speedup=round(judged.speedup, 3))

    def _leave_out(self, spec: Spec, status: str, reason: str) -> None:
        self.others.append(Candidate(name=spec.name, status=status, reason=reason))


def _peak(workshop: DecoderWorkshop, plan: MemoryPlan) -> int:
    context = min(LEAST_CONTEXT, workshop.source.generation.context)
    return plan.peak + context * plan.kv_per_token
