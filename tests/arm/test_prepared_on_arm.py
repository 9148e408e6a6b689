"""Prepared weights on classes of arm64 CPUs, under emulation: for what they compute, not how fast.

Without dot product (Cortex-A53), with it (A76), and with int8 matrix products (``max``).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from edge_sdk.runtime.prepared.packing import TESTED
from tests.arm.compare import FORMS

REPOSITORY = Path(__file__).parents[2]
QEMU = "qemu-aarch64-static"
BASE = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
# qemu's name of the CPU, its part number and features as the kernel would show them.
CPUS = {
    "cortex-a53": ("0xd03", BASE),
    "cortex-a76": ("0xd0b", f"{BASE} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"),
    # Its emulated SME computes wrong int8 products.
    "max,sme=off": ("0xd4f", f"{BASE} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp i8mm bf16"),
}

pytestmark = [pytest.mark.slow, pytest.mark.needs(QEMU, "qemu-user-static")]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("arm64")
    script = Path(__file__).with_name("make_root.sh")
    subprocess.run([script, folder, TESTED[-1]], check=True, timeout=600)
    return folder


def run(root: Path, cpu: str, folder: Path) -> dict[str, dict[str, Any]]:
    """What ``compare.py`` prints on a CPU, by form."""
    part, features = CPUS[cpu]
    core = f"processor : 0\nFeatures : {features}\nCPU implementer : 0x41\nCPU part : {part}\n"
    (root / "proc" / "cpuinfo").write_text(core.replace(" :", "\t:"))
    [python] = root.glob("usr/bin/python3.[0-9]*")
    command = [QEMU, "-cpu", cpu, "-L", root, python, "-m", "tests.arm.compare", folder]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return {found["form"]: found for found in map(json.loads, done.stdout.splitlines())}


def test_prepared_weights_give_the_same_bits_on_every_class_of_cpu(root, tmp_path):
    found = {cpu: run(root, cpu, tmp_path / cpu) for cpu in CPUS}
    for cpu, forms in found.items():
        assert set(forms) == set(FORMS)
        for form, result in forms.items():
            assert len(set(result["logits"])) == 1, (cpu, form)
            if (cpu, form) == ("cortex-a53", "int8-b32"):
                assert "packs none of its weights" in result["notes"][1][0]
            else:
                assert result["prepared"] == 3, (cpu, form)
                assert result["notes"][1] == [], (cpu, form)
    layouts = {cpu: forms["int4-b32"]["layout"] for cpu, forms in found.items()}
    assert len(set(layouts.values())) == len(CPUS)

    # A card moved to another board: its packed weights do not serve there.
    moved = tmp_path / "moved"
    shutil.copytree(tmp_path / "cortex-a76", moved)
    for form, result in run(root, "cortex-a53", moved).items():
        assert result["logits"] == found["cortex-a53"][form]["logits"]
        assert result["layout"] == layouts["cortex-a53"]
