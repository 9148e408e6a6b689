"""The committed exports as sources."""

from __future__ import annotations

from pathlib import Path

from converters.seq2seq.source import Seq2SeqSource, read_export
from edge_sdk.runtime import steps
from tests.seq2seq.fixtures.archive import unpack
from tests.seq2seq.inputs import FOLDER, SPECTROGRAM

__all__ = ["FOLDER", "read"]


def read(name: str, work: Path) -> Seq2SeqSource:
    """An export, read as the reader of Hugging Face folders does."""
    return read_export(
        unpack(FOLDER / f"{name}.tar.xz", work / "export"),
        work / "made",
        path=work / "export",
        name=name,
        digest="sha256:" + "0" * 64,
        preprocess=(steps.to_step(SPECTROGRAM),) if name == "whisper" else (),
    )
