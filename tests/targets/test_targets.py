"""Every kind of model on every target: it runs as the source does, or what blocks it is named.

The table of kinds is also the table of docs/targets.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

import edge_sdk
from converters import convert
from edge_sdk.bundle.reader import open_bundle
from edge_sdk.errors import ConversionError
from tests.passes.models import graph, normal
from tests.targets.kinds import KINDS, Array, Kind
from tests.tensorrt.conftest import parser  # noqa: F401 - a fixture

pytestmark = pytest.mark.converts

LITERT_ONLY = "armv7-512mb"
OTHERS = ("x86-64", "arm64", "board-512mb", "jetson-orin-nano")
PAGE = Path(__file__).parents[2] / "docs" / "targets.md"
TOLERANCE = 1e-3  # of the largest element; float16 on the way is what is left


def written(kind: Kind, folder: Path) -> Path:
    onnx.save(ir.to_proto(kind.model()), folder / "model.onnx")
    (folder / "recipe.toml").write_text('name = "fp32"\n')  # the search is not what is tested
    return folder / "model.onnx"


def converted(kind: Kind, folder: Path, *profiles: str) -> Path:
    source, out = written(kind, folder), folder / "bundle"
    np.savez(folder / "data.npz", **_one(kind))
    convert(
        source,
        profiles=profiles,
        out=out,
        recipe=folder / "recipe.toml",
        states=kind.states,
        data=folder / "data.npz",
    )
    return out


def _one(kind: Kind) -> Mapping[str, Array]:
    """A sample of the first call: text as text, the batch axis kept."""
    return {
        name: (array.astype(str) if array.dtype == object else array)[(None,) * bool(array.ndim)]
        for name, array in kind.calls[0].items()
    }


def reference(source: Path, kind: Kind) -> Iterator[dict[str, Array]]:
    """What ONNX Runtime makes of the calls, with states from call to call."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(source, options)
    names = [output.name for output in session.get_outputs()]
    for call in kind.calls:
        feeds = dict(call)
        batch = next(iter(call.values())).shape[1] if kind.states else 1
        for name in kind.states.values():
            feeds[name] = np.zeros((1, batch, 16), np.float32)
        for _ in range(3 if kind.states else 1):
            found = dict(zip(names, session.run(None, feeds), strict=True))
            yield found
            feeds |= {given: found[output] for output, given in kind.states.items()}


def actual(bundle: Path, profile: str, kind: Kind) -> Iterator[dict[str, Array]]:
    with edge_sdk.load(bundle, profile=profile) as model:
        for call in kind.calls:
            stream = model.stream() if kind.states else model
            for _ in range(3 if kind.states else 1):
                yield stream.run(call)


def assert_same(found: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype)
        if array.dtype.kind == "f":
            largest = float(np.abs(array).max(initial=1e-6))
            np.testing.assert_allclose(found[name], array, rtol=0, atol=TOLERANCE * largest)
        else:
            np.testing.assert_array_equal(found[name], array)


def assert_runs(bundle: Path, folder: Path, kind: Kind, *profiles: str) -> None:
    for profile in profiles:
        expected = reference(folder / "model.onnx", kind)
        for found, wanted in zip(actual(bundle, profile, kind), expected, strict=True):
            assert_same(found, wanted)


THROUGH = [name for name, kind in KINDS.items() if not kind.blocked]
BLOCKED = [name for name, kind in KINDS.items() if kind.blocked]


@pytest.mark.parametrize("name", THROUGH)
def test_what_goes_through_litert_computes_what_the_source_does(name: str, tmp_path: Path) -> None:
    bundle = converted(KINDS[name], tmp_path, LITERT_ONLY)
    assert_runs(bundle, tmp_path, KINDS[name], LITERT_ONLY)


@pytest.mark.parametrize("name", BLOCKED)
def test_what_is_blocked_says_by_what_and_what_to_leave_out(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConversionError) as caught:
        converted(KINDS[name], tmp_path, "x86-64", LITERT_ONLY)
    message = str(caught.value)
    assert f"profile '{LITERT_ONLY}'" in message
    assert KINDS[name].blocked in message
    assert "LiteRT" in message
    assert f"leave out -p {LITERT_ONLY}" in message
    assert not (tmp_path / "bundle").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_other_targets_take_every_kind(name: str, tmp_path: Path) -> None:
    bundle = converted(KINDS[name], tmp_path, *OTHERS)
    assert_runs(bundle, tmp_path, KINDS[name], *OTHERS)


def said_of(column: int) -> dict[str, str]:
    """Kind of model -> what the page says in a column; "likewise" is what the row above says."""
    rows: dict[str, str] = {}
    above = ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("| "):
            name, *cells = line.removeprefix("| ").split(" | ")
            above = rows[name] = cells[column] if cells[column] != "likewise" else above
    return rows


def test_page_has_a_row_for_every_kind_and_says_whether_litert_takes_it() -> None:
    rows = said_of(0)
    for name, kind in KINDS.items():
        assert rows[name].startswith("no: ") == bool(kind.blocked), name


@pytest.mark.slow
@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize("name", KINDS)
def test_page_says_whether_tensorrt_takes_it(name: str, tmp_path: Path) -> None:
    bundle = converted(KINDS[name], tmp_path, "jetson-orin-nano")  # a recipe: it ships anyhow
    report = open_bundle(bundle).variant("jetson-orin-nano").report
    assert report is not None
    [note] = report.notes
    said = said_of(1)[name]
    assert ("accepts every node" in note) == said.startswith("yes"), note
    operators = re.findall(r"`(\w+)`", said.partition(":")[2])
    assert not operators or any(operator in note for operator in operators), note


def test_a_half_that_ends_its_process_does_not_end_the_conversion(tmp_path: Path) -> None:
    """ONNX Runtime 1.31 dies of a transposition before a product in float16 on the CPU."""
    model = graph(
        "(float[B,T,8] x) => (float[T,B,4] y)",
        "a = Transpose <perm = [1,0,2]> (x) y = MatMul (a, w)",
        w=normal(8, 4),
    )
    onnx.save(ir.to_proto(model), tmp_path / "half.onnx")
    [variant] = convert(tmp_path / "half.onnx", ["jetson-orin-nano"], tmp_path / "bundle").variants
    rows = {row.name: row for row in variant.report.candidates}
    assert rows[variant.report.chosen].status == "chosen"
    half = rows["fp16"]
    assert half.status != "failed" or "in a process of its own" in half.reason


def test_empty_results_have_their_shape(tmp_path: Path) -> None:
    kind = KINDS["Loop"]
    bundle = converted(kind, tmp_path, LITERT_ONLY)
    with edge_sdk.load(bundle, profile=LITERT_ONLY) as model:
        found = model.run({"x": normal(2, 8), "n": np.array(0)})
    assert found["all"].shape == (0, 2, 8)
