"""The search for one profile: families, then mixtures, then refinements, then the choice.

1. every family the profile's rules name is built for every engine of the profile, in its
   plainest variant, and timed against the source in turn where engine and ISA are here;
2. families that could still win get their other variants built; the most accurate stays;
3. a family that would win but misses ``--max-drop`` gets its worst nodes back (sensitivity);
4. the leader is refined the same way while accuracy is worth more than the speed it costs;
5. the finalists are compared on all data and timed again, and the best one is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import msgspec

from converters import sensitivity
from converters.choose import (
    GLANCE,
    Judged,
    Limits,
    choose,
    finalists_of,
    is_slower,
    objection,
    standing,
    value,
)
from converters.costs import node_costs
from converters.hybrid import check_scales, hybrid_share
from converters.outcome import Outcome, Setbacks, row
from converters.passes.base import is_rewrite
from converters.recipes import SOURCE, families, family_of, prepare, split_steps
from converters.share import quantized_share, with_steps
from converters.stopwatch import Stopwatch
from converters.target import Target
from converters.workshop import Built, Workshop
from device_profiles.schema import Profile, Rules
from edge_sdk.bundle.record import NodeCost, Recipe, Step
from edge_sdk.errors import EdgeSdkError

REFINE_GROUPS = 2
Say = Callable[[str], None]


class Search:
    """Searches one profile's best variant.

    Args:
        workshop: Builds and compares candidates; shared between profiles.
        stopwatch: Times them against the source; shared between profiles.
        profile: The device.
        rules: Its rules for this kind of model.
        targets: The engines that candidates are made for, and the formats they read.
        limits: What a candidate must hold.
        decisive: Engines for which measured latency decides: they and the ISA are here.
        peak_bytes: Predicts a candidate's peak memory on the device.
        dimensions: Symbolic dimension -> value, for the share of the work that is quantized.
        fixed: Scalar inputs that the user fixed, which select branches.
        quick_samples: Evaluation samples while searching.
        say: Told what happens, for progress display.
        inspect: What the device's compiler has against a candidate; asked about finalists.
        on_device: Judges finalists by what a real device measures, the source before them.
    """

    def __init__(
        self,
        workshop: Workshop,
        stopwatch: Stopwatch,
        profile: Profile,
        rules: Rules,
        targets: Sequence[Target],
        limits: Limits,
        *,
        decisive: Collection[str],
        peak_bytes: Callable[[Built], int],
        dimensions: Mapping[str, int],
        fixed: Mapping[str, float] | None,
        quick_samples: int,
        say: Say,
        inspect: Callable[[Built], EdgeSdkError | None] = lambda built: None,
        on_device: Callable[[Sequence[Judged]], list[Judged]] | None = None,
    ) -> None:
        self.workshop = workshop
        self.stopwatch = stopwatch
        self.profile = profile
        self.rules = rules
        self.targets = {target.choice.name: target for target in targets}
        self.prepared = {t.choice.name: prepare(profile, t, fixed) for t in targets}
        self.limits = limits
        self.decisive = decisive
        self.peak_bytes = peak_bytes
        self.dimensions = dimensions
        self.quick_samples = quick_samples
        self.say = say
        self.inspect = inspect
        self.on_device = on_device
        self.judged: dict[str, Judged] = {}
        self.rescued: set[str] = set()
        self.costs: dict[str, tuple[NodeCost, ...]] = {}
        self.rankings: dict[str, list[sensitivity.Sensitivity]] = {}
        self.origins: dict[str, Recipe] = {}
        self.graphs: dict[tuple[str, bytes], str] = {}
        self.others: dict[str, list[Recipe]] = {}
        onnx = next((name for name, t in self.targets.items() if t.format == "onnx"), SOURCE.engine)
        self.source = workshop.source_candidate(msgspec.structs.replace(SOURCE, engine=onnx))
        self.setbacks = Setbacks(self.source.recipe.engine)
        originals = (workshop.original_candidate(target) for target in targets)
        self.originals = {built.recipe.name: built for built in originals if built}

    def run(self) -> Outcome:
        """Runs the whole search."""
        self._judge([self.source, *self._opened_originals()])
        self._judge(built for built in map(self._plainest, self._families()) if built)
        for name, variants in self.others.items():
            self._improve(self.judged[name], variants)
        self._rescue()
        self._refine()
        return self._decide()

    def run_only(self, recipe: Recipe) -> Outcome:
        """Builds and measures one recipe: forced by the user or taken from a base bundle.

        A forced one ships whatever it is like, or raises; another must hold the limits.
        """
        source = self.source
        if not recipe.steps:
            built: Built | None = self.originals.get(recipe.name, source)
        elif recipe.forced:
            built = self.workshop.build(recipe, split_steps(recipe))
        else:
            built = self._try(recipe, split_steps(recipe))
        if built is None:
            return Outcome(None, self.setbacks.rows[-1].reason, tuple(self.setbacks.rows))
        if not recipe.forced and self._is_refused(built):
            return Outcome(None, self.setbacks.refused[built.recipe.name], ())
        self._judge([source] if built is source else [source, built], thorough=True)
        only = self.judged[built.recipe.name]
        if not recipe.forced and self._measured_there([only]):
            only = self.judged[only.name]
        if is_slower(only) and not recipe.forced and self.judged[SOURCE.name] in self._allowed():
            return Outcome(None, f"slower than the source: {only.speedup:.2f}x", ())
        return self._settle([only], forced=recipe.forced)

    def _opened_originals(self) -> Iterable[Built]:
        for name, built in self.originals.items():
            if self.setbacks.attempt(name, self._opened, built):
                yield built

    def _opened(self, original: Built) -> Built:
        if self.rules.scales_apart:
            check_scales(original.path)
        self._drop(original)
        return original

    def _families(self) -> Iterable[list[Recipe]]:
        """Families, plainest first: of recipes that come to the same, the plainest name stays."""
        found: list[list[Recipe]] = []
        for name, target in self.targets.items():
            if target.runs_here:
                found += families(self.profile, self.rules, target, self.prepared[name]).values()
            else:
                reason = f"{name} is not installed here, so nothing could be compared on it"
                self.setbacks.leave_out(target.named("*"), "failed", reason)
        return sorted(found, key=lambda variants: len(variants[0].steps))

    def _plainest(self, variants: list[Recipe]) -> Built | None:
        """The first variant of a family, or ``None`` if it could not be built or adds nothing."""
        first, *others = variants
        built = self._try(first)
        if built is None:
            return None
        twin = self._twin(built)
        if twin is not None:
            self.setbacks.leave_out(first.name, "rejected", twin)
            return None
        self.others[first.name] = others
        return built

    def _improve(self, first: Judged, others: list[Recipe]) -> None:
        """Puts a family's most accurate variant in the place of its first, if that can matter.

        All are as fast as the first; one that would not win without any loss cannot win.
        """
        best = max((value(c, self.limits) for c in self._allowed()), default=0.0)
        if not others or value(first, self.limits, drop=0.0) * (1 + GLANCE) < best:
            return
        found = [built for built in map(self._try, others) if built and not self._twin(built)]
        winner = min(found, key=self._drop, default=first.built)
        if self._drop(winner) < self._drop(first.built):
            del self.judged[first.name]
            self._judge([winner])

    def _twin(self, built: Built) -> str | None:
        """Says so if this recipe comes down to one that was built before."""
        prepared = self.prepared[built.recipe.engine]
        rest = built.recipe.steps[len(prepared) :]
        if not built.effective and not all(is_rewrite(step.op) for step in rest):
            return "nothing in this model that it would change"
        key = built.format, msgspec.json.encode(built.effective, order="deterministic")
        first = self.graphs.setdefault(key, built.recipe.name)
        return None if first == built.recipe.name else f"comes down to {first} in this model"

    def _try(self, recipe: Recipe, prepared: tuple[Step, ...] | None = None) -> Built | None:
        self.say(f"{self.profile.name}: building {recipe.name}")
        known = prepared or self.prepared.get(recipe.engine, ())
        return self.setbacks.attempt(recipe.name, self._built, recipe, known)

    def _built(self, recipe: Recipe, prepared: tuple[Step, ...]) -> Built:
        built = self.workshop.build(recipe, prepared)
        self._drop(built)
        return built

    def _drop(self, built: Built) -> float:
        return self.workshop.agreement(built, self.quick_samples).drop

    def _judge(self, candidates: Iterable[Built], *, thorough: bool = False) -> None:
        """Compares and times candidates; ``thorough`` uses all data and more repeats."""
        batch = list(candidates)
        times = self.stopwatch.time(batch, thorough=thorough)
        for built in batch:
            latency = times.get(built.path)
            measured = built.recipe.engine in self.decisive and latency is not None
            judged = Judged(
                built,
                self.workshop.agreement(built, None if thorough else self.quick_samples),
                speedup=latency.speedup if measured and latency else self._predicted(built),
                measured=measured,
                peak_bytes=self.peak_bytes(built),
                latency_ms=latency.median_ms if latency else None,
                confirmed=thorough,
            )
            before = self.judged.get(judged.name)
            if before is not None and before.device is not None:  # which knows better
                judged = replace(before, agreement=judged.agreement)
            self.judged[judged.name] = judged

    def _predicted(self, built: Built) -> float:
        """Speedup from the profile's rules, for the share of the work that is quantized."""
        family, engine = family_of(built.recipe), built.recipe.engine
        target = self.targets.get(engine)
        if target is None or built is self.source:
            return 1.0
        speedup = self.profile.speedup
        floats = speedup(target.choice, "fp32")
        expected = speedup(target.choice, family) if family else floats
        costs = self._costs(engine)
        flops = {cost.node: cost.flops for cost in costs}
        share = quantized_share(flops, built.graph) if built.effective else 0.0
        if not built.recipe.steps:  # the user's own file, for another engine than its graph
            share, expected = hybrid_share(built.path), speedup(target.choice, "int8-dynamic")
        gain = 1 / ((1 - share) / floats + share / expected)
        return with_steps(gain, costs) if target.format == "tflite" else gain

    def _costs(self, engine: str) -> tuple[NodeCost, ...]:
        if engine not in self.costs:
            model, _ = self.workshop.prepared(self.prepared[engine])
            self.costs[engine] = node_costs(model, self.dimensions)
        return self.costs[engine]

    def _allowed(self) -> list[Judged]:
        return [c for c in self.judged.values() if self._objection(c) is None]

    def _objection(self, candidate: Judged) -> str | None:
        return self.setbacks.refused.get(candidate.name) or objection(candidate, self.limits)

    def _is_refused(self, built: Built) -> bool:
        """Whether the device's compiler does not take a candidate; the reason is kept."""
        error = self.inspect(built)
        if error is not None:
            self.setbacks.refuse(built.recipe.name, error)
        return error is not None

    def _rescue(self) -> bool:
        """Gives a family that would win but misses the limit its worst nodes back.

        Returns:
            Whether there are new candidates.
        """
        known = len(self.judged)
        best = max((value(c, self.limits) for c in self._allowed()), default=0.0)
        missing = [
            c
            for c in self.judged.values()
            if c.name not in self.rescued
            and c.agreement.drop > self.limits.max_drop
            and c.peak_bytes <= self.limits.budget_bytes
            and not is_slower(c)
            and value(c, self.limits, drop=self.limits.max_drop / 2) > best
        ]
        for candidate in sorted(missing, key=lambda c: -value(c, self.limits, drop=0))[:2]:
            self.rescued.add(candidate.name)
            origin = self._origin(candidate)
            mixed = self.setbacks.attempt(f"{origin.name}-mixed", self._mixture, origin)
            if mixed:
                self._judge([mixed])
        return len(self.judged) > known

    def _mixture(self, origin: Recipe) -> Built | None:
        ranked, limit = self._ranked(origin), self.limits.max_drop
        if not ranked:
            return None
        prepared = self.prepared[origin.engine]
        mixed = sensitivity.hold_limit(
            self.workshop, origin, prepared, ranked, limit, self.quick_samples
        )
        if mixed:
            self.origins[mixed.recipe.name] = origin
        return mixed

    def _origin(self, candidate: Judged) -> Recipe:
        """The recipe a mixture was made from: what is mixed further starts there."""
        return self.origins.get(candidate.name, candidate.built.recipe)

    def _refine(self) -> None:
        """Returns the worst nodes of the best mixable candidate to 8-bit blocks."""
        mixable = [
            c for c in self._allowed() if not is_slower(c) and sensitivity.can_block(c.built.recipe)
        ]
        leader = max(mixable, key=lambda c: value(c, self.limits), default=None)
        if leader is None or not leader.measured:
            return
        best = max(value(c, self.limits) for c in self._allowed())
        if value(leader, self.limits, drop=leader.agreement.drop / 2) < best:
            return  # another engine's candidate is too far ahead
        if leader.agreement.drop < self.limits.max_drop / 20:
            return
        origin = self._origin(leader)
        ranked = self.setbacks.attempt(f"{origin.name}-mixed", self._ranked, origin) or []
        excluded = sensitivity.excluded(leader.built.recipe)
        done = sum(excluded.issuperset(item.group) for item in ranked)
        # One group moves less than timing noise: return enough at once to tell.
        nodes = [name for item in ranked[: done + REFINE_GROUPS] for name in item.group]
        if len(ranked) > done:
            mixture = self._try(sensitivity.in_blocks(origin, nodes, f"-mixed{len(nodes)}"))
            self._judge([mixture] if mixture else [])

    def _ranked(self, recipe: Recipe) -> list[sensitivity.Sensitivity]:
        if recipe.name not in self.rankings:
            self.say(f"{self.profile.name}: measuring sensitivity of {recipe.name}")
            samples = max(4, self.quick_samples // 2)
            self.rankings[recipe.name] = sensitivity.measure(
                self.workshop, recipe, self.prepared[recipe.engine], samples
            )
        return self.rankings[recipe.name]

    def _decide(self) -> Outcome:
        """Confirms the finalists on all data; a finalist that fails makes room for the next."""
        confirmed: set[str] = set()
        while True:
            finalists = finalists_of(self._allowed(), self.limits)
            fresh = [c for c in finalists if c.name not in confirmed]
            if not fresh:
                # What passed at a glance and failed on all data gets one more chance.
                self.quick_samples = len(self.workshop.evaluation)
                if self._rescue() or self._measured_there(finalists):
                    continue
                return self._settle(finalists)
            if any(self._is_refused(c.built) for c in fresh):
                continue  # others are finalists then
            self.say(f"{self.profile.name}: confirming {', '.join(c.name for c in fresh)}")
            self._judge((c.built for c in fresh), thorough=True)
            confirmed |= {c.name for c in fresh}

    def _measured_there(self, finalists: Sequence[Judged]) -> bool:
        """Has finalists measured on the device; whether there are some that were not yet."""
        fresh = [c for c in finalists if c.device is None and c.built.recipe.steps]
        if self.on_device is None or not fresh:
            return False
        source = self.judged[self.source.recipe.name]
        runs_there = self.source.recipe.engine in self.targets
        for judged in self.on_device([source, *fresh] if runs_there else fresh):
            self.judged[judged.name] = judged
        return True

    def _settle(self, finalists: list[Judged], *, forced: bool = False) -> Outcome:
        remedy = None
        if forced:
            chosen: Judged | None = finalists[0]
            reason = "forced by the recipe"
        else:
            best, reason = choose(finalists or list(self.judged.values()), self.limits)
            chosen = best if best in finalists else None
            if chosen is None:
                runnable = any(c.built.recipe.engine in self.targets for c in self.judged.values())
                reason, remedy = self.setbacks.blocking(reason, runnable=runnable)
        rows = [
            row(c, *("chosen", reason) if c is chosen else self._standing(c))
            for c in self.judged.values()
        ]
        rows.sort(key=lambda line: (line.status != "chosen", line.status, line.name))
        return Outcome(chosen, reason, (*rows, *self.setbacks.rows), remedy)

    def _standing(self, candidate: Judged) -> tuple[str, str]:
        return standing(candidate, self.limits, self._objection(candidate))
