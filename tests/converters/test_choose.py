"""The choice is pure arithmetic: these cases are checked by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from converters.choose import Judged, Limits, choose, objection, value
from converters.target import targets
from converters.workshop import Built
from device_profiles.loader import load_profile
from device_profiles.machine import InstalledEngine, Machine
from edge_sdk.bundle.record import Agreement, Recipe

LIMITS = Limits(max_drop=0.01, budget_bytes=100, source_bytes=400, size_exponent=0.25)


def judged(name, *, drop=0.0, speedup=1.0, size=400, peak=50):
    agreement = Agreement(
        samples=8, cosine=1 - drop, max_error=0.0, drop=drop, drop_of="1 - cosine"
    )
    built = Built(Recipe(name=name), Path(name), size)
    return Judged(built, agreement, speedup, measured=True, peak_bytes=peak)


def test_faster_candidate_wins_at_equal_size_and_accuracy():
    best, _ = choose([judged("slow"), judged("fast", speedup=2.0)], LIMITS)
    assert best is not None and best.name == "fast"


def test_smaller_candidate_wins_at_equal_speed_and_accuracy():
    best, _ = choose([judged("large"), judged("small", size=100)], LIMITS)
    assert best is not None and best.name == "small"


def test_candidate_that_uses_up_its_allowance_must_be_e_times_better():
    accurate = judged("accurate", speedup=2.0)
    at_limit = judged("at-limit", drop=0.01, speedup=2.0 * 2.7)
    beyond = judged("beyond", drop=0.01, speedup=2.0 * 2.8)
    assert value(at_limit, LIMITS) < value(accurate, LIMITS) < value(beyond, LIMITS)


def test_candidate_over_max_drop_is_never_chosen():
    best, _ = choose([judged("source"), judged("wrong", drop=0.02, speedup=50)], LIMITS)
    assert best is not None and best.name == "source"


def test_nan_drop_is_an_objection():
    assert objection(judged("nan", drop=float("nan")), LIMITS)


def test_what_is_closest_runs_on_an_engine_of_the_profile():
    limits = replace(LIMITS, engines=("litert",))
    wrong = judged("fp32@litert", drop=0.5)
    wrong = replace(wrong, built=replace(wrong.built, recipe=Recipe(name="fp32", engine="litert")))
    best, reason = choose([judged("source"), wrong], limits)
    assert best is None
    assert "closest is fp32" in reason and "exceeds --max-drop" in reason


def test_slower_than_source_is_chosen_only_if_nothing_else_fits_memory():
    slow = judged("slow", speedup=0.5, size=10)
    best, _ = choose([judged("source"), slow], LIMITS)
    assert best is not None and best.name == "source"
    best, reason = choose([judged("source", peak=500), slow], LIMITS)
    assert best is slow
    assert "slower than the source" in reason


def test_nothing_qualifies_says_which_limit_failed_and_by_how_much():
    best, reason = choose([judged("a", drop=0.03), judged("b", drop=0.5)], LIMITS)
    assert best is None
    assert "a" in reason and "0.03" in reason and "0.01" in reason


@given(
    st.lists(
        st.tuples(st.floats(0, 0.02), st.floats(0.3, 5), st.integers(50, 800), st.integers(1, 200)),
        min_size=1,
    )
)
def test_choice_always_holds_the_limits(cases):
    candidates = [
        judged(str(i), drop=drop, speedup=speedup, size=size, peak=peak)
        for i, (drop, speedup, size, peak) in enumerate(cases)
    ]
    best, _ = choose(candidates, LIMITS)
    if best is None:
        assert all(objection(c, LIMITS) for c in candidates)
    else:
        assert objection(best, LIMITS) is None


def test_candidate_for_an_engine_that_the_profile_lacks_is_rejected():
    only_litert = replace(LIMITS, engines=("litert",))
    assert objection(judged("source"), LIMITS) is None
    assert "'onnx'" in (objection(judged("source"), only_litert) or "")


def test_latency_decides_per_engine_and_only_where_isa_and_first_provider_are_here():
    x86, jetson = load_profile("x86-64"), load_profile("jetson-orin-nano")
    engine = InstalledEngine(name="onnx", version="1", providers=("CPUExecutionProvider",))

    def deciding(profile, platform, isa, engines=(engine,)):
        here = Machine(
            title="", platform=platform, isa=isa, cores=4, memory_mib=4096, engines=engines
        )
        return {t.choice.name for t in targets(profile) if t.decides(profile, here)}

    isa = frozenset(x86.cpu.isa)
    litert = InstalledEngine(name="litert", version="2")
    assert deciding(x86, x86.platform, isa) == {"onnx"}
    assert deciding(x86, x86.platform, isa, (engine, litert)) == {"onnx", "litert"}
    assert not deciding(x86, x86.platform, frozenset())
    assert not deciding(load_profile("arm64"), x86.platform, isa)
    assert not deciding(jetson, jetson.platform, frozenset(jetson.cpu.isa))
