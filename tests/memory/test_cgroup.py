"""The control groups that other tests and benchmarks rely on count, kill and throttle."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from benchmarks import cgroup

pytestmark = pytest.mark.skipif(
    cgroup.unavailable() is not None, reason=f"no control groups: {cgroup.unavailable()}"
)
MIB = 1 << 20


def test_a_process_beyond_its_limit_is_killed_and_counted():
    program = "import sys; x = bytearray(int(sys.argv[1])); print(len(x))"
    with cgroup.limited("edge-sdk-test", memory=48 * MIB) as group:
        small, large = (
            subprocess.run([*group.prefix, sys.executable, "-c", program, str(size)],
                           capture_output=True, check=False)
            for size in (MIB, 256 * MIB)
        )  # fmt: skip
        assert (small.returncode, large.returncode) == (0, -9)
        assert group.kills == 1
        assert group.hits > 0
        assert group.peak <= 48 * MIB
        assert group.swapped == 0


def test_reads_are_throttled(tmp_path):
    file = tmp_path / "data"
    file.write_bytes(os.urandom(8 * MIB))
    cgroup.evict([tmp_path])
    program = f"import time; t = time.perf_counter(); open({str(file)!r}, 'rb').read()"
    program += "; print(time.perf_counter() - t)"
    with cgroup.limited("edge-sdk-test", read_bytes_per_second=8 * MIB) as group:
        done = subprocess.run([*group.prefix, sys.executable, "-c", program],
                              capture_output=True, check=True)  # fmt: skip
    assert float(done.stdout) > 0.5  # a throttle may be late by half, never early by more
