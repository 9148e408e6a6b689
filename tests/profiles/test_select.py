"""Which profile a machine is given."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from device_profiles.loader import profiles
from device_profiles.schema import Platform
from device_profiles.select import closest, select
from edge_sdk.errors import ProfileError
from tests.profiles.machines import (
    CORTEX_A7,
    GATEWAY,
    OLD_GATEWAY,
    ORIN_NANO,
    PI_4,
    PI_5,
    PI_5_32_BIT,
    PI_ZERO_2W,
)

CPU_ONLY = ("CPUExecutionProvider",)
KNOWN = profiles()
EVERYTHING = {name: profile.platform for name, profile in KNOWN.items()}


def _only(*names):
    return {name: EVERYTHING[name] for name in names}


@pytest.mark.parametrize(
    ("board", "available", "expected"),
    [
        (GATEWAY, EVERYTHING, "x86-64"),
        (OLD_GATEWAY, EVERYTHING, "x86-64"),
        (PI_5, EVERYTHING, "arm64"),
        (PI_5, _only("board-512mb", "jetson-orin-nano"), "board-512mb"),
        (PI_4, EVERYTHING, "board-512mb"),
        (PI_ZERO_2W, EVERYTHING, "board-512mb"),
        (CORTEX_A7, EVERYTHING, "armv7-512mb"),
        (PI_5_32_BIT, EVERYTHING, "armv7-512mb"),
        (ORIN_NANO, EVERYTHING, "jetson-orin-nano"),
        (ORIN_NANO, _only("arm64", "board-512mb"), "arm64"),
        (replace(ORIN_NANO, providers=CPU_ONLY), EVERYTHING, "arm64"),
        # Nothing is installed, or only something for a larger device: still the nearest.
        (replace(PI_5, engine="none"), _only("arm64"), "arm64"),
        (replace(GATEWAY, memory_kib=1_000_000), _only("x86-64"), "x86-64"),
    ],
)
def test_the_best_of_the_available_profiles_is_chosen(tmp_path, board, available, expected):
    assert select(available, board.read(tmp_path), KNOWN) == expected
    assert select(available, board.read(tmp_path / "again")) == expected


@pytest.mark.parametrize(
    ("memory_kib", "expected"),
    [(4_147_200, "pi-4gb"), (8_245_248, "pi-8gb"), (16_600_000, "pi-8gb"), (1_900_000, "pi-4gb")],
)
def test_the_largest_device_that_is_not_larger_is_chosen(tmp_path, memory_kib, expected):
    arm64 = KNOWN["arm64"]
    sized = {
        name: msgspec.structs.replace(
            arm64, name=name, memory=msgspec.structs.replace(arm64.memory, total_mib=total)
        )
        for name, total in (("pi-4gb", 4096), ("pi-8gb", 8192))
    }
    available = {name: profile.platform for name, profile in sized.items()}
    machine = replace(PI_5, memory_kib=memory_kib).read(tmp_path)
    assert select(available, machine, sized) == expected


def test_a_profile_unknown_here_is_judged_by_its_platform(tmp_path):
    here, elsewhere = EVERYTHING["arm64"], EVERYTHING["x86-64"]
    machine = PI_5.read(tmp_path)
    assert select({"acme": here, "other": elsewhere}, machine) == "acme"
    assert select({"acme": here, "arm64": here}, machine) == "arm64"


def test_older_32_bit_arm_is_not_given_newer_code(tmp_path):
    v6 = replace(CORTEX_A7, uname="armv6l")
    machine = v6.read(tmp_path)
    with pytest.raises(ProfileError, match="linux/arm/v7"):
        select(_only("armv7-512mb"), machine, KNOWN)
    old = Platform(os="linux", architecture="arm", variant="v6")
    assert select({"old": old}, machine, KNOWN) == "old"


def test_nothing_suitable_lists_what_was_available_and_why_not(tmp_path):
    with pytest.raises(ProfileError) as caught:
        select(_only("x86-64", "arm64"), PI_ZERO_2W.read(tmp_path), KNOWN)
    text = str(caught.value)
    assert "linux/arm64/v8" in text
    assert "x86-64: is for linux/amd64" in text
    assert "arm64: needs asimddp, asimdhp" in text


def test_an_empty_bundle_suits_no_machine(tmp_path):
    with pytest.raises(ProfileError, match="none"):
        select({}, GATEWAY.read(tmp_path), KNOWN)


def test_closest_forgives_missing_features_but_not_the_architecture(tmp_path):
    machine = msgspec.structs.replace(OLD_GATEWAY.read(tmp_path), isa=frozenset({"sse4_2"}))
    assert closest(KNOWN, machine).name == "x86-64"
    with pytest.raises(ProfileError, match="amd64"):
        closest({"arm64": KNOWN["arm64"]}, machine)
