"""What the kernel's files say about a machine, on texts of real boards."""

from __future__ import annotations

import pytest

from device_profiles import procfs
from device_profiles.machine import detect_machine, oci_platform
from edge_sdk.errors import ProfileError
from tests.profiles.machines import (
    CORTEX_A7,
    GATEWAY,
    ORIN_NANO,
    PI_5,
    PI_5_32_BIT,
    PI_ZERO_2W,
)

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("board", "architecture", "variant", "features", "title"),
    [
        (PI_ZERO_2W, "arm64", "v8", {"fp", "asimd"}, "Raspberry Pi Zero 2 W Rev 1.0"),
        (
            PI_5,
            "arm64",
            "v8",
            {"fp", "asimd", "asimdhp", "asimddp"},
            "Raspberry Pi 5 Model B Rev 1.0",
        ),
        (
            ORIN_NANO,
            "arm64",
            "v8",
            {"fp", "asimd", "asimdhp", "asimddp"},
            "NVIDIA Jetson Orin Nano Developer Kit",
        ),
        (CORTEX_A7, "arm", "v7", {"neon", "vfpv3", "vfpv4"}, "ARMv7 Processor rev 5 (v7l)"),
        (PI_5_32_BIT, "arm", "v7", {"neon", "vfpv3", "vfpv4"}, "aarch64 machine"),
    ],
)
def test_boards_are_recognised(tmp_path, board, architecture, variant, features, title):
    machine = board.read(tmp_path)
    assert machine.platform.architecture == architecture
    assert machine.platform.variant == variant
    assert machine.isa == features
    assert machine.title == title
    assert machine.memory_mib == board.memory_kib // 1024


def test_x86_flags_that_matter_are_kept(tmp_path):
    machine = GATEWAY.read(tmp_path)
    assert machine.isa >= {"avx2", "fma", "f16c", "avx512_vnni"}
    assert "x2apic" not in machine.isa
    assert machine.cores == 4


def test_features_are_those_all_cores_have(tmp_path):
    root = PI_5.write(tmp_path)
    text = (root / "proc/cpuinfo").read_text()
    (root / "proc/cpuinfo").write_text(text.replace(" asimddp", "", 1))
    assert "asimddp" not in procfs.cpu_features(root)
    assert "asimdhp" in procfs.cpu_features(root)


def test_the_affinity_mask_limits_the_cores(tmp_path):
    assert PI_5.read(tmp_path, cpus=3).cores == 3


def _cgroup(root, line, files):
    (root / "proc/self").mkdir(exist_ok=True)
    (root / "proc/self/cgroup").write_text(line)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


@pytest.mark.parametrize(
    ("line", "files", "expected_mib"),
    [
        ("0::/app\n", {"app/memory.max": 512 * MIB}, 512),
        ("0::/app\n", {"app/memory.max": "max", "memory.max": 256 * MIB}, 256),
        ("0::/a/b\n", {"a/memory.max": 300 * MIB, "a/b/memory.max": 400 * MIB}, 300),
        ("0::/app\n", {"app/memory.max": "max"}, 8052),
        ("4:memory:/app\n", {"memory/app/memory.limit_in_bytes": 512 * MIB}, 512),
        ("4:memory:/x\n", {"memory/memory.limit_in_bytes": 9223372036854771712}, 8052),
        # Inside a container: the path is the host's, the limit lies at the mount's top.
        ("4:memory:/docker/3f\n0::/\n", {"memory/memory.limit_in_bytes": 128 * MIB}, 128),
        ("0::/app\n", {}, 8052),
    ],
)
def test_the_smaller_of_memory_and_cgroup_limit_wins(tmp_path, line, files, expected_mib):
    root = PI_5.write(tmp_path)
    _cgroup(root, line, files)
    assert procfs.memory_mib(root) == expected_mib


@pytest.mark.parametrize(
    ("line", "files", "cores"),
    [
        ("0::/app\n", {"app/cpu.max": "200000 100000"}, 2),
        ("0::/app\n", {"app/cpu.max": "50000 100000"}, 1),
        ("0::/app\n", {"app/cpu.max": "max 100000"}, 4),
        (
            "3:cpu,cpuacct:/app\n",
            {
                "cpu,cpuacct/app/cpu.cfs_quota_us": 300000,
                "cpu,cpuacct/app/cpu.cfs_period_us": 100000,
            },
            3,
        ),
        (
            "3:cpu,cpuacct:/app\n",
            {"cpu/app/cpu.cfs_quota_us": -1, "cpu/app/cpu.cfs_period_us": 100000},
            4,
        ),
    ],
)
def test_the_cpu_quota_limits_the_cores(tmp_path, line, files, cores):
    _cgroup(PI_5.write(tmp_path), line, files)
    assert PI_5.read(tmp_path).cores == cores


def test_the_last_level_cache_is_the_largest(tmp_path):
    for index, size in enumerate(["32K", "512K", "8M"]):
        folder = tmp_path / f"sys/devices/system/cpu/cpu0/cache/index{index}"
        folder.mkdir(parents=True)
        (folder / "size").write_text(f"{size}\n")
    assert procfs.last_level_cache_bytes(tmp_path) == 8 * MIB
    assert procfs.last_level_cache_bytes(tmp_path / "nothing") == 0


def test_unsupported_machines_are_named_with_the_supported_ones():
    with pytest.raises(ProfileError, match="riscv64") as caught:
        oci_platform("riscv64")
    assert "aarch64" in str(caught.value)


def test_without_proc_the_file_is_named(tmp_path):
    with pytest.raises(ProfileError, match="proc/meminfo"):
        procfs.memory_mib(tmp_path)


def test_this_machine_is_described():
    machine = detect_machine()
    assert machine.isa
    assert machine.cores >= 1
    assert machine.memory_mib > 0
    assert machine.title
