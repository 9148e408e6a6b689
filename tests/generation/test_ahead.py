from __future__ import annotations

from threading import Barrier, Thread

import pytest

from edge_sdk.errors import BundleError
from edge_sdk.runtime.generation.ahead import Ahead


def test_value_is_made_once_however_many_ask():
    made, together = [], Barrier(5)

    def make() -> object:
        made.append(object())
        return made[0]

    ahead = Ahead(make)
    found = []

    def ask() -> None:
        together.wait()
        found.append(ahead.get())

    threads = [Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    together.wait()
    ahead.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert found == made * 4


def test_value_is_made_before_anybody_asks():
    begun = Barrier(2)
    ahead = Ahead(lambda: begun.wait(timeout=60))
    ahead.start()
    begun.wait(timeout=60)  # only another thread can have come here
    assert ahead.get() in (0, 1)


def test_what_goes_wrong_is_raised_where_the_value_is_asked_for():
    tried = []

    def make() -> object:
        tried.append(1)
        raise BundleError("damaged")

    ahead = Ahead(make)
    ahead.start()
    for _ in range(2):
        with pytest.raises(BundleError, match="damaged"):
            ahead.get()
    assert len(tried) >= 2
