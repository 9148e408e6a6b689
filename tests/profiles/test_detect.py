"""A detected profile says what the machine is and takes its rules from the closest known one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from device_profiles.detect import describe
from device_profiles.loader import profiles
from device_profiles.machine import detect_machine
from device_profiles.parse import parse, to_toml
from device_profiles.speed import Speed, measure_speed
from tests.profiles.machines import CORTEX_A7, GATEWAY, OLD_GATEWAY, ORIN_NANO, PI_5, PI_ZERO_2W

SPEED = Speed(bandwidth_gb_per_s=12.3456, fp32_gflops_per_core=20.0)
KNOWN = profiles()


def _describe(board, root):
    return describe(board.read(root), SPEED, 1000, name="mine", known=KNOWN)


@pytest.mark.parametrize(
    ("board", "base"),
    [
        (GATEWAY, "x86-64"),
        (PI_5, "arm64"),
        (PI_ZERO_2W, "board-512mb"),
        (CORTEX_A7, "armv7-512mb"),
        (ORIN_NANO, "jetson-orin-nano"),
    ],
)
def test_rules_come_from_the_closest_profile(tmp_path, board, base):
    profile = _describe(board, tmp_path)
    assert profile.quantization == KNOWN[base].quantization
    assert profile.speedups == KNOWN[base].speedups
    here = [choice for choice in KNOWN[base].engines if choice.name == board.engine]
    assert list(profile.engines) == here
    assert profile.standard_ops_only == KNOWN[base].standard_ops_only
    assert parse(to_toml(profile), "detected") == profile


def test_figures_come_from_the_machine(tmp_path):
    profile = _describe(PI_5, tmp_path)
    assert (profile.name, profile.title) == ("mine", "Raspberry Pi 5 Model B Rev 1.0")
    assert (profile.cpu.cores, profile.cpu.threads) == (4, 4)
    assert profile.cpu.isa == ("asimd", "asimddp", "asimdhp", "fp")
    assert (profile.cpu.fp32_gflops_per_core, profile.cpu.int8_gops_per_core) == (20.0, 60.0)
    assert profile.memory.bandwidth_gb_per_s == 12.3
    assert profile.memory.total_mib == 8052
    assert profile.memory.model_budget_mib == 4026
    assert profile.storage.budget_mib == 500


def test_only_providers_that_are_here_remain(tmp_path):
    board = replace(ORIN_NANO, providers=("CUDAExecutionProvider", "CPUExecutionProvider"))
    engine = _describe(board, tmp_path).engines[0]
    assert engine.providers == ("CUDAExecutionProvider", "CPUExecutionProvider")


def test_without_any_engine_the_profile_still_names_those_to_install(tmp_path):
    assert _describe(replace(PI_5, engine="none"), tmp_path).engines == KNOWN["arm64"].engines


def test_7_bit_weights_where_int8_products_saturate(tmp_path):
    old = _describe(OLD_GATEWAY, tmp_path / "old").quantization
    new = _describe(GATEWAY, tmp_path / "new").quantization
    board = _describe(PI_ZERO_2W, tmp_path / "board").quantization
    assert all(rules.reduce_range and "VNNI" in rules.reason for rules in old.values())
    assert not any(rules.reduce_range for rules in (*new.values(), *board.values()))


def test_this_machine_can_be_measured():
    machine = detect_machine()
    speed = measure_speed(cores=machine.cores, cache_bytes=0, memory_mib=512)
    assert speed.bandwidth_gb_per_s > 0
    assert speed.fp32_gflops_per_core > 0
