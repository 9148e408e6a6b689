from __future__ import annotations

import numpy as np
import pytest

from converters.litert_file import parts
from tests.runtime.tflite_bytes import File, dense

pytestmark = pytest.mark.converts


def layers(changed: int | None = None) -> bytes:
    """Six layers of 256 KiB, and one of 16 KiB, with biases of their own."""
    rng = np.random.default_rng(0)
    file = File()
    first = value = file.tensor("x", (1, 256))
    for layer, width in enumerate((256, 256, 256, 256, 256, 256, 16)):
        weight = rng.standard_normal((width, 256)).astype(np.float32)
        bias = rng.standard_normal(width).astype(np.float32)
        if layer == changed:
            weight += np.float32(1e-3)
        inputs = [value, file.constant(f"w{layer}", weight), file.constant(f"b{layer}", bias)]
        value = file.tensor(f"y{layer}", (1, width))
        file.op("FULLY_CONNECTED", inputs, [value], "FullyConnectedOptions")
    return file.write({"x": first}, {"y": value})


def test_parts_joined_are_the_file_and_large_buffers_stand_alone():
    data = layers()
    found = parts(data)
    assert b"".join(found) == data
    assert [len(part) for part in found].count(256 * 256 * 4) == 6
    assert max(len(part) for part in found) == 256 * 256 * 4


def test_fine_tuned_layer_changes_its_own_part_alone():
    base, tuned = parts(layers()), parts(layers(changed=2))
    assert [len(part) for part in base] == [len(part) for part in tuned]
    different = [i for i, (a, b) in enumerate(zip(base, tuned, strict=True)) if a != b]
    assert len(different) == 1
    assert len(base[different[0]]) == 256 * 256 * 4


def test_small_buffers_are_cut_in_runs_so_that_a_change_stays_in_one():
    data = dense((128,) * 40, batch=1)  # 39 layers of 64 KiB
    found = parts(data)
    assert b"".join(found) == data
    sizes = [len(part) for part in found]
    assert min(sizes[:-1]) >= 256 * 1024
    assert max(sizes) < 384 * 1024


def test_small_file_is_one_part():
    data = dense()
    assert [bytes(part) for part in parts(data)] == [data]


def test_file_of_another_kind_or_damaged_is_still_joined_to_itself():
    data = layers()
    for number in range(0, 4096, 5):
        damaged = bytearray(data[:300_000])
        damaged[number] ^= 0xFF
        assert b"".join(parts(damaged)) == damaged
    assert b"".join(parts(b"\0" * 999)) == b"\0" * 999
    assert parts(b"") == []
