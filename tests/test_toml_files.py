"""Configuration files become typed values, or errors that name every wrong key."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from edge_sdk.errors import ConfigError
from edge_sdk.toml_files import read


class Inner(msgspec.Struct, frozen=True, kw_only=True):
    port: int = 1
    file: str | None = None


class Outer(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    folder: str = "."
    inner: Inner = Inner()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "some.toml"


def test_options_go_before_the_file_and_the_file_before_defaults(file):
    file.write_text('name = "file"\n[inner]\nport = 2\n')
    assert read(file, Outer) == Outer(name="file", inner=Inner(port=2))
    options = {"name": "option", "inner.port": None, "inner.file": "x"}
    assert read(file, Outer, options=options) == Outer(name="option", inner=Inner(port=2, file="x"))
    assert read(None, Outer, options={"name": "alone", "inner.port": 3}) == Outer(
        name="alone", inner=Inner(port=3)
    )


def test_paths_are_relative_to_the_file_that_names_them(file):
    file.write_text('name = "x"\nfolder = "data"\n[inner]\nfile = "/etc/ca.crt"\n')
    found = read(file, Outer, paths=("folder", "inner.file", "absent.key"))
    assert found.folder == str(file.parent / "data")
    assert found.inner.file == "/etc/ca.crt"
    # An option is relative to where the command runs.
    assert read(file, Outer, options={"folder": "here"}, paths=("folder",)).folder == "here"


def test_every_wrong_key_is_named(file):
    file.write_text('nam = "x"\nfolder = 3\n[inner]\nport = "80"\n')
    with pytest.raises(ConfigError) as caught:
        read(file, Outer)
    text = str(caught.value)
    for said in (str(file), "nam: unknown key (did you mean 'name'?)", "folder: 3", "inner.port"):
        assert said in text


@pytest.mark.parametrize("text", ["inner = 3\n", "inner = [1]\n"])
def test_a_value_in_place_of_a_table_is_named_also_beside_options(file, text):
    file.write_text(f'name = "x"\n{text}')
    with pytest.raises(ConfigError, match="inner: expected a table with keys port, file"):
        read(file, Outer, options={"inner.port": 3}, paths=("inner.file",))


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"name = ", "not valid TOML"), (b"\xff", "not valid TOML"), (None, "cannot be read")],
)
def test_a_file_that_is_none_is_named(file, content, said):
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=said) as caught:
        read(file, Outer)
    assert caught.value.where == str(file)


def test_a_missing_key_without_a_file_is_named():
    with pytest.raises(ConfigError, match="name: missing; expected a string"):
        read(None, Outer)
