"""Prepared weights on classes of arm64 CPUs, under emulation: for what they compute, not how fast.

Without dot product (Cortex-A53), with it (A76), and with int8 matrix products (``max``).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.arm.boards import A53, A76, NEWEST, Board
from tests.arm.compare import FORMS

pytestmark = [pytest.mark.slow, pytest.mark.needs("qemu-aarch64-static", "qemu-user-static")]
CORES = (A53, A76, NEWEST)


def compare(board: Board, folder: Path) -> dict[str, dict[str, Any]]:
    """What ``compare.py`` prints on a board, by form."""
    done = board.run("-m", "tests.arm.compare", folder)
    return {found["form"]: found for found in map(json.loads, done.stdout.splitlines())}


def test_prepared_weights_give_the_same_bits_on_every_class_of_cpu(board, tmp_path):
    found = {core.name: compare(board(core), tmp_path / core.name) for core in CORES}
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
    assert len(set(layouts.values())) == len(CORES)

    # A card moved to another board: its packed weights do not serve there.
    moved = tmp_path / "moved"
    shutil.copytree(tmp_path / "cortex-a76", moved)
    for form, result in compare(board(A53), moved).items():
        assert result["logits"] == found["cortex-a53"][form]["logits"]
        assert result["layout"] == layouts["cortex-a53"]
