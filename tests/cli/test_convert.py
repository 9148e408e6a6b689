"""Conversions from the command line, on one model of each kind."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from edge_sdk.bundle.reader import open_bundle
from edge_sdk.cli.run import read_npz
from tests.cli import models
from tests.cli.conftest import Converted, edge_sdk

KINDS = ("classifier", "encoder", "recurrent", "branching", "quantized", "two_inputs")
# What int8 may do to one output, relative to its largest value.
TOLERANCE = 0.15


@pytest.fixture(params=KINDS)
def converted(request) -> Converted:
    return request.getfixturevalue(request.param)


def test_bundle_is_complete(converted):
    bundle = open_bundle(converted.bundle)
    bundle.verify()
    assert [v.digest for v in bundle.variants] == [
        v["digest"] for v in converted.report["variants"]
    ]
    assert "<svg" in (converted.bundle / "report.html").read_text()


def test_nothing_is_left_beside_the_bundle(converted):
    assert not [path for path in converted.source.parent.iterdir() if "partial" in path.name]


def test_chosen_candidate_holds_the_limits(converted):
    for row, report in converted.rows:
        if row["name"] == report["chosen"]:
            assert row["status"] == "chosen"
            assert row["agreement"]["drop"] <= report["max_drop"]


def test_slower_candidates_do_not_ship(converted):
    for row, _ in converted.rows:
        if row["status"] in ("chosen", "qualified") and row["speedup"] is not None:
            assert row["speedup"] > 0.89, row
        if row["status"] == "rejected" and row["reason"].startswith("slower"):
            assert row["speedup"] < 0.97


def test_source_is_always_a_candidate(converted):
    for variant in converted.report["variants"]:
        assert "source" in {row["name"] for row in variant["report"]["candidates"]}


def run(converted: Converted, feeds: dict, folder) -> tuple[dict, dict]:
    """Outputs of the bundle through ``edge-sdk run``, and of the source."""
    np.savez(folder / "x.npz", **feeds)
    files = ("--input", folder / "x.npz", "--output", folder / "y.npz")
    done = edge_sdk("run", converted.bundle, "--profile", converted.profile, *files)
    assert done.returncode == 0, done.stderr
    session = onnxruntime.InferenceSession(converted.source, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return read_npz(folder / "y.npz"), dict(zip(names, session.run(names, feeds), strict=True))


def test_outputs_agree_with_the_source(converted, tmp_path):
    feeds = models.feeds(converted.source, seed=3)
    if "mode" in feeds:
        feeds["mode"] = np.array(1)  # as fixed
    found, expected = run(converted, feeds, tmp_path)
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        if array.dtype.kind == "f":
            atol = TOLERANCE * np.abs(array).max()
            np.testing.assert_allclose(found[name], array, rtol=0, atol=atol, err_msg=name)
