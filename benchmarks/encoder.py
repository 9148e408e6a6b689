"""A real sentence encoder (MiniLM-L6, 22 M parameters) as a user converts it.

The model comes from a wheel and is exported once, in an environment of its own
under ``build/benchmarks`` (:mod:`benchmarks.minilm_export`).
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from benchmarks import minilm_export
from benchmarks.result import Outcome, Row
from converters import compare, convert
from converters.data import load_data
from converters.materialize import open_path
from converters.source import open_source
from device_profiles.loader import load_profile
from device_profiles.parse import to_toml
from edge_sdk.bundle.reader import open_bundle
from edge_sdk.runtime.bench import Call, Request, bench
from edge_sdk.runtime.sessions import open_pipeline

if TYPE_CHECKING:
    from edge_sdk.bundle.record import Agreement

CACHE = Path(__file__).parents[1] / "build" / "benchmarks"
PROFILE = "x86-64"
ALONE = "x86-64-onnx"  # the same machine without LiteRT
LENGTHS = (32, 128)
SENTENCES = 200
VOCABULARY = 30_000


def run(quick: bool) -> Outcome:
    """What the converter chooses among all engines of the profile, and for ONNX Runtime alone."""
    home = exported()
    alone = home / f"{ALONE}.toml"
    profile = load_profile(PROFILE)
    engines = tuple(engine for engine in profile.engines if engine.name == "onnx")
    alone.write_text(to_toml(msgspec.structs.replace(profile, name=ALONE, engines=engines)))
    best = measured(home, PROFILE, PROFILE, "", quick)
    onnx = measured(home, str(alone), ALONE, " for ONNX Runtime alone", quick)
    others = {f"onnx_{name}": figure for name, figure in onnx.figures.items()}
    return Outcome(rows=(*best.rows, *onnx.rows), figures={**best.figures, **others})


def measured(home: Path, profile: str, name: str, given: str, quick: bool) -> Outcome:
    """Converts with 200 sentences; measures speed by length and agreement on 200 others."""
    source, bundle = home / "model.onnx", CACHE / f"minilm-{name}.bundle"
    report = convert(source, [profile], bundle, data=home / "calibration.jsonl", overwrite=True)
    [variant] = [found.report for found in report.variants]
    chosen = variant.candidates[0]
    seconds = 1.0 if quick else 10.0
    speedups = {length: speedup(source, bundle, name, length, seconds) for length in LENGTHS}
    found = agreement(home, bundle, name, 20 if quick else SENTENCES)
    ratios = " / ".join(f"{speedups[length]:.2f}×" for length in LENGTHS)
    return Outcome(
        rows=(
            Row(
                f"MiniLM-L6 sentence encoder, chosen by the converter{given}: {chosen.name} on "
                f"{chosen.engine}, against fp32 as ONNX Runtime optimizes it, one thread, "
                f"{' / '.join(map(str, LENGTHS))} tokens",
                f"{variant.source_size_bytes / chosen.size_bytes:.1f}× smaller "
                f"({chosen.size_bytes / 1e6:.0f} MB), {ratios} the speed, "
                f"{(chosen.peak_rss_bytes or 0) / 1e6:.0f} MB peak memory",
            ),
            Row(
                f"the encoder chosen{given}, on {found.samples} held-out sentences",
                f"cosine {found.cosine:.4f}, same nearest neighbour {found.nearest or 0:.1%}",
            ),
            Row(
                f"the encoder chosen{given}, whole conversion with calibration and search",
                f"{report.seconds:.0f} s",
            ),
        ),
        figures={
            "source_bytes": variant.source_size_bytes,
            "variant_bytes": chosen.size_bytes,
            "variant_peak_rss_bytes": chosen.peak_rss_bytes or 0,
            **{f"speedup_of_{row.name}": row.speedup for row in variant.candidates if row.speedup},
            **{f"speedup_{length}": speedups[length] for length in LENGTHS},
            "cosine": found.cosine,
            "nearest": found.nearest or 0.0,
            "conversion_seconds": report.seconds,
        },
    )


def speedup(source: Path, bundle: Path, profile: str, length: int, seconds: float) -> float:
    """Source latency over variant latency for texts of one length."""
    calls = [tokens(length)]
    request = Request(bundle, profile, source, calls=calls, threads=(1,), seconds=seconds)
    return bench(request).speedup or 0.0


def tokens(length: int) -> Call:
    """Random words as one text of that many tokens."""
    ids = np.random.default_rng(length).integers(1000, VOCABULARY, (1, length))
    return {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.zeros_like(ids),
    }


def agreement(home: Path, bundle: Path, profile: str, sentences: int) -> Agreement:
    """Compares embeddings of held-out sentences."""
    source = open_source(home / "model.onnx")
    data = load_data(home / "heldout.jsonl", source.inputs, tokenizer=source.tokenizer)
    data = data.take(range(sentences))
    variant = open_bundle(bundle).variant(profile)
    [session] = open_pipeline(variant, threads=1, arena=True).sessions.values()
    return compare.agreement(
        compare.run(open_path(source.path), data), compare.run(session, data), task=source.task
    )


def exported() -> Path:
    """The folder of the exported model and its sentences; made on first use."""
    home = CACHE / "minilm"
    if not (home / "heldout.jsonl").is_file():
        environment = CACHE / "minilm-environment"
        venv.create(environment, with_pip=True)
        python = environment / "bin" / "python"
        for requirements in minilm_export.REQUIREMENTS:
            subprocess.run([python, "-m", "pip", "install", "-q", *requirements], check=True)
        subprocess.run([python, minilm_export.__file__, home], check=True, stdout=sys.stderr)
    return home
