"""The planner against a toy device: whatever is desired and whatever fails, it converges."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.agent import plan
from edge_sdk.agent.journal import Failure, Journal, ModelEntry, Release
from edge_sdk.agent.plan import Present, Serving, Step, Target, next_step
from edge_sdk.shadow.models import CanaryVersion, Desired, DesiredModel

DIGESTS = ["a", "b", "c", "d"]
NAMES = ["m", "n"]


def wish(digest: str, **fields) -> DesiredModel:
    return DesiredModel(ref=f"r/{digest}:1", digest=digest, version=digest, **fields)


def entry(running: str | None = None, previous: str | None = None, **fields) -> ModelEntry:
    known = [
        Release(digest=digest, version=digest, ref="r") if digest else None
        for digest in (running, previous)
    ]
    return ModelEntry(running=known[0], previous=known[1], managed=True, **fields)


def journal(desired: dict[str, DesiredModel] | None = None, **models: ModelEntry) -> Journal:
    return Journal(models=models, desired=None if desired is None else Desired(models=desired))


def everything(*digests: str, **fields) -> Present:
    return Present(installed=frozenset(digests), **fields)


def test_what_is_installed_is_served_before_anything_else():
    step = next_step(journal({"m": wish("b"), "n": wish("c")}, m=entry("a")), everything("a"))
    assert step == plan.Load("m", entry("a").running)


def test_a_damaged_version_gives_way_to_the_one_before():
    step = next_step(journal({"m": wish("b")}, m=entry("b", "a")), everything("a"))
    assert step == plan.Load("m", entry("a").running)


def test_a_bad_version_goes_before_a_new_wish():
    before = entry("b", "a", on_trial=True)
    present = everything("a", "b", serving={"m": Serving("b")}, verdicts={("m", "b"): "bad"})
    step = next_step(journal({"m": wish("c")}, m=before), present)
    assert isinstance(step, plan.RollBack)
    assert step.release.digest == "a"
    assert step.failure.status == "rolled_back"


def test_nothing_is_removed_before_the_cloud_was_heard():
    present = everything("a", serving={"m": Serving("a")})
    assert next_step(journal(None, m=entry("a")), present) is None
    step = next_step(journal({}, m=entry("a")), present)
    assert step == plan.Remove("m")


def test_a_canary_is_installed_after_every_model():
    canary = CanaryVersion(ref="r/b:1", digest="b", version="b", percent=5)
    desired = {"m": wish("a", canary=canary), "n": wish("c")}
    present = everything("a", serving={"m": Serving("a")})
    step = next_step(journal(desired, m=entry("a")), present)
    assert step == plan.Fetch("n", Target("c", "c", "r/c:1"))


def test_what_waits_holds_up_nothing_else():
    desired = {"m": wish("a"), "n": wish("b")}
    step = next_step(journal(desired), Present(waiting=frozenset({"m"})))
    assert step.model == "n"
    assert next_step(journal(desired), Present(waiting=frozenset(NAMES))) is None


def test_a_download_that_nobody_wants_any_more_is_stale():
    fetching = plan.Fetch("m", Target("b", "b", "r"))
    assert not plan.is_stale(journal({"m": wish("b")}), fetching)
    assert plan.is_stale(journal({"m": wish("c")}), fetching)
    assert not plan.is_stale(journal({"m": wish("c")}), plan.Prepare("m", fetching.target))


@dataclass
class Toy:
    """A device that only keeps account; some bundles fail at some step, always or once."""

    journal: Journal = field(default_factory=Journal)
    present: Present = field(default_factory=Present)
    broken: dict[str, type[Step]] = field(default_factory=dict)
    bad: frozenset[str] = frozenset()
    served: set[str] = field(default_factory=set)

    def wish(self, desired: Desired) -> None:
        for name in desired.models:
            known = msgspec.structs.replace(self.journal.model(name), managed=True)
            self.journal = self.journal.with_model(name, known)
        self.journal = msgspec.structs.replace(self.journal, desired=desired)
        self.present = replace(self.present, unloadable=frozenset())

    def restart(self) -> None:
        self.present = Present(installed=self.present.installed, litter=True)

    def damage(self, digest: str) -> None:
        self.present = replace(self.present, installed=self.present.installed - {digest})

    def converge(self) -> None:
        for _ in range(60):
            step = next_step(self.journal, self.present)
            if step is None:
                return
            self.perform(step)
            self.judge()
        raise AssertionError(f"does not converge: {step}")

    def judge(self) -> None:
        verdicts = {}
        for name, serving in self.present.serving.items():
            for digest in filter(None, (serving.digest, serving.canary)):
                verdicts[name, digest] = "bad" if digest in self.bad else "good"
        self.present = replace(self.present, verdicts=verdicts)

    def perform(self, step: Step) -> None:
        name, now = step.model, self.present
        known = self.journal.model(name)
        serving = now.serving.get(name)
        match step:
            case plan.Load(release=release):
                assert release.digest in now.installed
                if self.broken.get(release.digest) is plan.Load:
                    self.present = replace(now, unloadable=now.unloadable | {release.digest})
                else:
                    self.serve(name, Serving(release.digest))
            case plan.Collect(digests=digests):
                assert not digests & plan.needed(self.journal)
                kept = now.installed - digests
                self.present = replace(
                    now, installed=kept, fetched=frozenset(), admitted=frozenset(), litter=False
                )
            case plan.Remove():
                self.journal = self.journal.with_model(name, None)
                left = {key: value for key, value in now.serving.items() if key != name}
                self.present = replace(now, serving=left)
            case plan.Confirm():
                back = known.previous and known.previous.digest
                assert serving.digest not in self.bad or back not in now.installed - now.unloadable
                self.remember(name, msgspec.structs.replace(known, on_trial=False))
            case plan.EndCanary(failure=failure):
                assert serving and serving.canary
                self.serve(name, Serving(serving.digest))
                if failure:
                    self.remember(name, known.failed(failure))
            case plan.RollBack(release=release, failure=failure):
                assert release.digest in now.installed
                went = msgspec.structs.replace(
                    known, running=release, previous=None, on_trial=False
                )
                self.remember(name, went.failed(failure))
                self.serve(name, Serving(release.digest, serving.canary, serving.percent))
            case _:
                self.install(step, known, serving)

    def install(self, step, known: ModelEntry, serving: Serving | None) -> None:
        name, target, now = step.model, step.target, self.present
        assert not known.failure(target.digest, target.generation) or target.allow_older
        if self.broken.get(target.digest) is type(step):
            failure = Failure(
                digest=target.digest, generation=target.generation, status="failed", error="x"
            )
            self.remember(name, known.failed(failure))
            return
        match step:
            case plan.Fetch():
                self.present = replace(now, fetched=now.fetched | {target.digest}, litter=True)
            case plan.Verify():
                assert target.digest in now.installed | now.fetched
                self.present = replace(
                    now,
                    installed=now.installed | {target.digest},
                    admitted=now.admitted | {target},
                )
            case plan.Prepare():
                assert target in now.admitted
                prepared = {**now.prepared, name: target.digest}
                self.present = replace(now, prepared=prepared)
            case plan.StartCanary(percent=percent):
                assert serving
                self.serve(name, Serving(serving.digest, target.digest, percent))
            case plan.Swap():
                old = Release(digest=serving.digest, version="x", ref="r") if serving else None
                changed = msgspec.structs.replace(
                    known,
                    running=target.release,
                    previous=old,
                    on_trial=old is not None,
                    failures=tuple(f for f in known.failures if f.digest != target.digest),
                )
                self.remember(name, changed)
                canary = serving.canary if serving and serving.canary != target.digest else None
                percent = serving.percent if serving and canary else 0
                self.serve(name, Serving(target.digest, canary, percent))

    def remember(self, name: str, known: ModelEntry) -> None:
        self.journal = self.journal.with_model(name, known)

    def serve(self, name: str, serving: Serving) -> None:
        self.served.add(name)
        prepared = {key: value for key, value in self.present.prepared.items() if key != name}
        self.present = replace(
            self.present, serving={**self.present.serving, name: serving}, prepared=prepared
        )


digests = st.sampled_from(DIGESTS)
canaries = st.builds(
    lambda digest, percent: CanaryVersion(
        ref=f"r/{digest}:1", digest=digest, version=digest, percent=percent
    ),
    digests,
    st.integers(1, 99),
)
models = st.builds(
    lambda digest, canary, generation: wish(digest, canary=canary, generation=generation),
    digests,
    st.none() | canaries,
    st.integers(0, 2),
)
wishes = st.builds(
    lambda chosen: Desired(models=chosen), st.dictionaries(st.sampled_from(NAMES), models)
)
events = st.lists(
    st.one_of(wishes, st.just("restart"), st.tuples(st.just("damage"), digests)), max_size=8
)
faults = st.dictionaries(
    digests, st.sampled_from([plan.Fetch, plan.Verify, plan.Prepare, plan.Load]), max_size=2
)


@settings(max_examples=400, deadline=None)
@given(events, faults, st.frozensets(digests, max_size=2))
def test_it_converges_whatever_is_desired_and_whatever_fails(happens, broken, bad):
    toy = Toy(broken=broken, bad=bad)
    for event in happens:
        match event:
            case "restart":
                toy.restart()
            case ("damage", digest):
                toy.damage(digest)
            case desired:
                toy.wish(desired)
        toy.converge()
        check(toy)


def check(toy: Toy) -> None:
    """What holds wherever nothing is left to do."""
    desired = (toy.journal.desired or Desired()).models
    for name, model in desired.items():
        serving = toy.present.serving.get(name)
        hopeless = (
            toy.journal.model(name).failure(model.digest, model.generation) is not None
            or model.digest in toy.present.unloadable
        )
        assert hopeless or (serving is not None and serving.digest == model.digest)
        if serving and serving.canary:
            assert serving.canary == model.canary.digest
            assert serving.percent == model.canary.percent
    assert set(toy.present.serving) <= set(desired)
    running = {serving.digest for serving in toy.present.serving.values()}
    canary = {serving.canary for serving in toy.present.serving.values() if serving.canary}
    assert toy.present.installed <= plan.needed(toy.journal)
    assert canary <= toy.present.installed | set(DIGESTS)
    assert running <= plan.needed(toy.journal)
