from __future__ import annotations

import pytest

from edge_sdk.errors import InputError, MemoryLimitError
from edge_sdk.runtime import process
from edge_sdk.runtime.memory import admit, parse_size, predicted_activations
from tests.runtime.bundles import plan

MIB = 2**20


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (1024, 1024),
        ("1024", 1024),
        ("256MiB", 256 * MIB),
        ("0.5 GiB", 512 * MIB),
        ("10 kB", 10_000),
        ("1g", 10**9),
    ],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", 0, "12 parsecs", "1iB"])
def test_wrong_sizes_are_input_errors(text):
    with pytest.raises(InputError, match="not a memory size"):
        parse_size(text)


def test_activations_grow_with_the_dimensions_of_the_call():
    reference = plan(activations=1000, batch=2, seq=16)
    assert predicted_activations(reference, {}) == 1000
    assert predicted_activations(reference, {"batch": 4}) == 2000
    assert predicted_activations(reference, {"batch": 4, "seq": 64}) == 8000
    assert predicted_activations(reference, {"batch": 1, "other": 9}) == 1000


def test_refusal_has_all_the_numbers():
    with pytest.raises(MemoryLimitError) as error:
        admit(plan(activations=4 * MIB), 60 * MIB, "tiny (here)")
    rows = [line.rsplit(maxsplit=2)[0:2] for line in error.value.message.splitlines()[1:]]
    assert [(name.strip(), float(size)) for name, size in rows] == [
        ("weights, mapped", 10),
        ("weights, private", 20),
        ("activations", 4),
        ("engine", 30),
        ("predicted peak", 64),
        ("limit", 60),
        ("short by", 4),
    ]
    assert error.value.where == "tiny (here)"


def test_what_just_fits_is_admitted():
    admit(plan(activations=4 * MIB), 64 * MIB, "tiny")


def test_batch_that_no_longer_fits_is_refused():
    fits = plan(activations=4 * MIB, batch=1)
    admit(fits, 70 * MIB, "tiny", {"batch": 2})
    with pytest.raises(MemoryLimitError, match=r"short by\s+2\.0 MiB"):
        admit(fits, 70 * MIB, "tiny", {"batch": 3})


def test_process_memory_is_what_the_kernel_says():
    ballast = bytearray(32 * MIB)
    assert 0 < process.pss() <= process.rss() + MIB
    assert len(ballast) < process.rss() <= process.peak_rss()
