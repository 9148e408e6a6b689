from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest

from edge_sdk.errors import BusyError, EngineError, InputError, NotServedError
from edge_sdk.serving.router import Router
from edge_sdk.serving.served import MOST_USES, Served
from tests.serving import models
from tests.serving.conftest import load

WAIT = 30  # seconds until a test that hangs fails


@pytest.fixture
def version(tmp_path):
    """Loads version ``n.0.0``, which multiplies by n."""

    def version(n: int) -> Served:
        bundle = tmp_path / str(n)
        if not bundle.exists():
            models.times(bundle, n, f"{n}.0.0")
        return load(bundle, f"sha256:{n:064}")

    return version


def answer(router: Router, version: str | None = None) -> float:
    with router.use("m", version) as served:
        return float(served.run({"x": [1]})["y"][0])


def test_what_is_not_served_is_an_error_that_says_what_is(router, version):
    with pytest.raises(NotServedError, match="there are: none yet"), router.use("m"):
        pass
    router.swap("m", version(1))
    with pytest.raises(NotServedError, match="other: no such model; there are: m"):
        router.find("other")
    with (
        pytest.raises(NotServedError, match=r"no version 3.0.0; there is 1.0.0"),
        router.use("m", "3.0.0"),
    ):
        pass


def test_a_swap_changes_who_answers_and_closes_the_version_before(router, version):
    one, two = version(1), version(2)
    assert router.swap("m", one) is None
    assert answer(router) == 1
    assert router.swap("m", two) is one
    assert answer(router) == 2
    assert one.wait_closed(WAIT)
    with pytest.raises(InputError, match="the model was closed"):
        one.model.run({"x": [1]})


def test_a_request_finishes_on_the_version_that_it_began_on(router, version):
    one = version(1)
    router.swap("m", one)
    with router.use("m") as served:
        router.swap("m", version(2))
        assert answer(router) == 2
        assert not one.wait_closed(0.05)
        assert served.run({"x": [1]})["y"][0] == 1
    assert one.wait_closed(WAIT)


def test_a_version_that_is_put_again_stays(router, version):
    one = version(1)
    router.swap("m", one)
    assert router.swap("m", one) is None
    assert answer(router) == 1


@pytest.mark.parametrize("percent", [1, 7, 33, 50, 99])
def test_a_canary_answers_exactly_its_share_of_each_hundred_requests(router, version, percent):
    router.swap("m", version(1))
    router.canary("m", version(2), percent)
    answers = [answer(router) for _ in range(300)]
    for begin in range(0, 300, 100):
        assert answers[begin : begin + 100].count(2) == percent
    gaps = np.diff([i for i, one in enumerate(answers) if one == 2])
    assert set(gaps) <= {100 // percent, -(-100 // percent)}  # evenly spread


def test_both_versions_can_be_asked_for(router, version):
    router.swap("m", version(1))
    router.canary("m", version(2), 50)
    assert [answer(router, "2.0.0") for _ in range(5)] == [2] * 5
    assert [answer(router, "1.0.0") for _ in range(5)] == [1] * 5
    assert [served.version for served in router.find("m")] == ["1.0.0", "2.0.0"]


def test_a_canary_that_ends_is_closed(router, version):
    router.swap("m", version(1))
    two = version(2)
    router.canary("m", two, 50)
    assert router.end_canary("m") is two
    assert two.wait_closed(WAIT)
    assert router.end_canary("m") is None
    assert {answer(router) for _ in range(10)} == {1}


def test_a_canary_becomes_the_version(router, version):
    one, two = version(1), version(2)
    router.swap("m", one)
    router.canary("m", two, 50)
    assert router.swap("m", two) is one
    assert one.wait_closed(WAIT)
    assert not two.wait_closed(0.05)
    assert {answer(router) for _ in range(10)} == {2}
    assert router.routes["m"].canary is None


def test_a_canary_is_replaced_and_its_share_changed(router, version):
    router.swap("m", version(1))
    two, three = version(2), version(3)
    router.canary("m", two, 10)
    router.canary("m", two, 90)
    assert not two.wait_closed(0.05)
    router.canary("m", three, 90)
    assert two.wait_closed(WAIT)
    assert sum(answer(router) == 3 for _ in range(100)) == 90


@pytest.mark.parametrize("percent", [0, 100, -1])
def test_a_canary_has_a_share_between_none_and_all(router, version, percent):
    router.swap("m", version(1))
    two = version(2)
    with pytest.raises(InputError, match="must be 1 to 99"):
        router.canary("m", two, percent)
    two.retire()


def test_a_canary_of_nothing_is_refused(router, version):
    two = version(2)
    with pytest.raises(NotServedError):
        router.canary("m", two, 50)
    two.retire()


def test_a_removed_model_is_gone(router, version):
    one, two = version(1), version(2)
    router.swap("m", one)
    router.canary("m", two, 50)
    assert router.remove("m") == (one, two)
    assert one.wait_closed(WAIT)
    assert two.wait_closed(WAIT)
    with pytest.raises(NotServedError):
        answer(router)
    assert router.remove("m") == ()


def test_expected_models_are_missing_until_they_are_served(router, version):
    assert not router.missing
    router.expect(["m", "n"])
    router.swap("m", version(1))
    assert router.missing == {"n"}


def test_a_version_takes_so_many_requests_at_once(router, version):
    one = version(1)
    router.swap("m", one)
    for _ in range(MOST_USES):
        one.hold()
    with pytest.raises(BusyError, match="64 requests"):
        answer(router)
    one.let_go()
    assert answer(router) == 1
    for _ in range(MOST_USES - 1):
        one.let_go()


def test_a_retired_version_is_not_used_again(version):
    one = version(1)
    one.retire()
    one.retire()
    assert one.wait_closed(WAIT)
    with pytest.raises(NotServedError, match="not served any more"):
        one.hold()


def test_nothing_is_lost_while_versions_are_swapped(router, version):
    """Threads that use whatever is there, through 20 swaps."""
    router.swap("m", version(1))
    stop, wrong, count = threading.Event(), [], [0] * 4

    def work(index: int) -> None:
        while not stop.is_set():
            with router.use("m") as served:
                if served.run({"x": [1]})["y"][0] != int(served.version[0]):
                    wrong.append(served.version)
                count[index] += 1

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    old = [router.swap("m", version(1 + i % 2)) for i in range(20)]
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert min(count) > 0
    assert all(served.wait_closed(WAIT) for served in old)


def test_figures_tell_the_models_failures_from_the_callers(tmp_path, router):
    served = load(models.lookup(tmp_path / "lookup"))
    router.swap("m", served)
    served.run({"x": [3]})
    with pytest.raises(EngineError):
        served.run({"x": [9]})
    with pytest.raises(InputError):
        served.run({"x": ["no number"]})
    figures = served.figures()
    assert (figures.requests, figures.errors) == (2, 1)
    assert figures.p50_ms > 0


def test_drift_is_against_the_version_before(router, version):
    one, two = version(1), version(200)
    router.swap("m", one)
    for _ in range(60):
        answer(router)
    assert one.drift is None
    router.swap("m", two)
    assert two.drift is None  # too few requests yet
    for _ in range(60):
        answer(router)
    assert two.drift > 0.25


def test_a_canary_like_the_stable_version_does_not_drift(router, tmp_path, version):
    router.swap("m", version(1))
    same = load(models.times(tmp_path / "same", 1, "1.0.1"))
    router.canary("m", same, 50)
    for _ in range(400):
        answer(router)
    assert same.drift == 0


def test_the_session_of_a_closed_model_is_freed_without_the_garbage_collector(version):
    gc.disable()
    try:
        one = version(1)
        session = weakref.ref(one.model._runner.sessions["main"])
        one.retire()
        assert one.wait_closed(WAIT)
        assert session() is None
    finally:
        gc.enable()
