"""The runner notices when a page is wrong."""

from __future__ import annotations

import pytest

from tests.docs import runner
from tests.docs.runner import matches, run_page


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a page with this text."""
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)

    def run(text: str) -> None:
        (tmp_path / "page.md").write_text(text, encoding="utf-8")
        run_page("page.md")

    return run


def test_blocks_run_in_order_in_one_folder_with_one_set_of_names(run):
    run(
        "```toml\n# given.toml\nkey = 1\n```\n"
        "```python\nfrom pathlib import Path\ntext = Path('given.toml').read_text()\n```\n"
        "```python\nPath('copy.txt').write_text(text)\n```\n"
        "```console\n$ cat copy.txt\n# given.toml\nkey = 1\n$ echo one \\\n  two\none two\n```\n"
    )


@pytest.mark.parametrize(
    "block",
    [
        "console\n$ false\n",
        "console\n$ false | cat\n",
        "console\n$ echo something\nsomething else\n",
        "console\n$ echo '1 line'; echo '2 lines'\n1 line\n",
        "console\n$ edge-sdk profiles list\nedge-sdk profiles: error: that does not come\n",
        "console\n$ edge-sdk profiles show nothing\n",
        "console\n$ edge-sdk profiles show nothing\nedge-sdk profiles: error: another\n",
        "python\nassert False\n",
    ],
)
def test_a_wrong_block_fails(run, block):
    with pytest.raises(AssertionError):
        run(f"Text.\n\n```{block}```\n")


def test_an_error_that_the_page_shows_must_come(run):
    run(
        "```console\n$ edge-sdk profiles show no\nedge-sdk profiles: error: unknown ...\n...\n```\n"
    )


def test_other_blocks_and_installations_are_not_run(run):
    run("```sh\nfalse\n```\n```console\n$ make nothing\n$ pip install nothing\n```\n")


@pytest.mark.parametrize(
    ("shown", "found", "same"),
    [
        ("454 KiB  2.83x", " 448 KiB    ~2.90x", False),
        ("454 KiB  2.83x", " 448 KiB    2.90x", True),
        ("drop 0", "drop 5.8e-06", True),
        ("int8-static", "int4-static", False),
        ("x86-64", "x86-32", False),
        ("first\n...\nlast", "first\nlast", True),
        ("first\n...\nlast", "first\n2\n3\nlast", True),
        ("first\n...", "second\nlast", False),
        ("on ... here", "on AMD EPYC here", True),
        ("sha256:1cb168d00812", "sha256:ffffffffffff0000", True),
    ],
)
def test_numbers_and_spaces_may_differ_and_nothing_else(shown, found, same):
    assert matches(shown, found) is same
