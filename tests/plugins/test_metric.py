"""The example metric."""

from __future__ import annotations

import json

import numpy as np
import pytest

from converters.metrics import find_metric
from edge_sdk.errors import DataError
from tests.passes.models import normal
from tests.plugins.conftest import expected


def test_the_example_metric_decides_about_a_conversion(tmp_path, edge_sdk, squares):
    x = normal(32, 16)
    np.savez(tmp_path / "data.npz", x=x, labels=expected(x) + 0.5)
    done = edge_sdk(
        *("convert", squares, "-o", tmp_path / "bundle", "-p", "x86-64", "--json"),
        *("--data", tmp_path / "data.npz", "--metric", "mae"),
    )
    assert done.returncode == 0, done.stderr
    [variant] = json.loads(done.stdout)["variants"]
    agreements = [row["agreement"] for row in variant["report"]["candidates"] if row["agreement"]]
    assert {agreement["drop_of"] for agreement in agreements} == {"drop of mae"}
    assert [a["metrics"]["mae"][0] for a in agreements] == pytest.approx([0.5] * len(agreements))
    assert variant["report"]["max_drop"] == 0.05


def test_more_error_is_worse_in_proportion(site, monkeypatch):
    monkeypatch.syspath_prepend(site)
    mae = find_metric("mae")
    assert mae.drop(2.0, 2.5) == 0.25
    assert mae.function([np.float32([1, 3])], [np.float32([[2, 5]])]) == 1.5


@pytest.mark.parametrize("label", [np.float32([1]), np.array(["cat", "dog"])])
def test_labels_that_do_not_fit_are_refused(site, monkeypatch, label):
    monkeypatch.syspath_prepend(site)
    with pytest.raises(DataError, match="labels"):
        find_metric("mae").function([np.float32([1, 3])], [label])
