"""Programs of ``torch.export``: names, sizes and numbers stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edge_sdk
from converters.source import open_source
from converters.toolchains import find, process
from edge_sdk.errors import SourceError
from tests.cli.conftest import answer
from tests.hugging_face.conftest import INSIDE

pytestmark = [pytest.mark.slow, pytest.mark.converts]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    environment = find("hugging-face")
    environment.install(print)
    out = tmp_path_factory.mktemp("programs")
    process.call(
        environment.python, INSIDE, "programs", {"out": str(out)}, print, where="tests", timeout=200
    )
    return out


def test_names_and_dynamic_sizes_are_those_of_the_program(programs: Path) -> None:
    source = open_source(programs / "two.pt2")
    assert source.name == "two"
    image, tokens = source.inputs
    assert (image.name, image.shape[1:]) == ("image", (3, 8, 8))
    assert tokens.name == "tokens"
    assert all(isinstance(size, str) for size in (image.shape[0], *tokens.shape))
    assert [spec.name for spec in source.outputs] == ["logits", "pooled"]


def test_a_program_computes_what_pytorch_does(programs: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "fp32.toml"
    recipe.write_text('name = "fp32"\n', encoding="utf-8")
    answer(
        "convert", programs / "two.pt2", "-o", tmp_path / "bundle", "-p", "x86-64",
        "--recipe", recipe,
    )  # fmt: skip
    arrays = np.load(programs / "two.npz")
    model = edge_sdk.load(tmp_path / "bundle", "x86-64")
    found = model.run({name: arrays[name] for name in ("image", "tokens")})
    for name in ("logits", "pooled"):
        np.testing.assert_allclose(found[name], arrays[name], atol=1e-5)


def test_a_recurrent_program_carries_its_state(programs: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "fp32.toml"
    recipe.write_text('name = "fp32"\n', encoding="utf-8")
    answer(
        "convert", programs / "cell.pt2", "-o", tmp_path / "bundle", "-p", "x86-64",
        "--recipe", recipe, "--state", "output_1=hx",
    )  # fmt: skip
    arrays = np.load(programs / "cell.npz")
    stream = edge_sdk.load(tmp_path / "bundle", "x86-64").stream()
    np.testing.assert_allclose(
        stream.run({"input": arrays["x"]})["output_0"], arrays["y"], atol=1e-5
    )
    again = stream.run({"input": arrays["x"]})["output_0"]
    assert np.abs(again - arrays["y"]).max() > 1e-3


def test_what_pytorch_cannot_read_is_refused(programs: Path, tmp_path: Path) -> None:
    content = (programs / "two.pt2").read_bytes()
    (tmp_path / "old.pt2").write_bytes(content.replace(b"archive_version", b"archive_versiox"))
    with pytest.raises(SourceError, match=r"torch 2\.13\.\d\S* cannot read it") as caught:
        open_source(tmp_path / "old.pt2")
    assert "torch.export.save" in str(caught.value.remedy)
