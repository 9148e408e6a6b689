"""The pages on toolchains and on Hugging Face models."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.docs.runner import run_page
from tests.hugging_face.conftest import cases

__all__ = ["cases"]

MODELS = {"all-MiniLM-L6-v2": "sentences", "vit-base": "vit", "whisper-tiny": "whisper"}


def test_toolchains(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGE_SDK_CACHE", str(tmp_path / "cache"))
    run_page("docs/toolchains.md")


@pytest.mark.slow
def test_hugging_face(cases, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, model in MODELS.items():
        shutil.copytree(cases[model].folder, name)
    lines = [json.dumps({"text": text}) for text in cases["sentences"].inputs * 4]
    (tmp_path / "sentences.jsonl").write_text("\n".join(lines), encoding="utf-8")
    run_page("docs/hugging-face.md")
