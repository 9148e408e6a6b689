"""Every link between the pages of this repository leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.runner import ROOT

PAGES = sorted(
    path.relative_to(ROOT)
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md")
    for path in ROOT.glob(pattern)
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


def prose(page: Path) -> str:
    """A page without its code."""
    return FENCED.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings: ``## `fit`: a b`` has ``fit-a-b``."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    plain = (re.sub(LINK, lambda link: link[0][1:].partition("]")[0], text) for text in headings)
    return {re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-") for text in plain}


def broken(page: Path) -> list[str]:
    """Links of a page to files or headings that are not there; other sites are not asked."""
    found = []
    for link in LINK.findall(prose(page)):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page):
    assert broken(ROOT / page) == []


@pytest.mark.parametrize(
    ("link", "leads"),
    [("other.md", True), ("other.md#a-b", True), ("#here", True), ("https://example.org/x", True),
     ("no.md", False), ("other.md#b", False), ("#there", False)],
)  # fmt: skip
def test_a_broken_link_is_found(tmp_path, link, leads):
    (tmp_path / "other.md").write_text("# `A`: b\n```\n# b\n```\n", encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text(f"## Here\n\nSee [this]({link}).\n", encoding="utf-8")
    assert broken(page) == ([] if leads else [link])
