"""``edge-sdk fit``: size, memory and speed of a model per profile, before converting it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edge_sdk.cli.convert import require_converters, spoken_progress
from edge_sdk.cli.output import emit_json, human_bytes, table
from edge_sdk.errors import InputError

if TYPE_CHECKING:
    from converters.fit_report import FitReport, ProfileFit, Range

EPILOG = """\
examples:
  edge-sdk fit model.onnx -p board-512mb -p arm64
  edge-sdk fit encoder.onnx -p x86-64 --dim sequence_length=256 --json
  edge-sdk fit SmolLM2-360M-Instruct/ -p board-512mb --dim context=1024 --dim prompt=200

Nothing is converted and the model is not run. Ranges are what was measured in eight of
ten cases on the benchmark models; accuracy is only known after `edge-sdk convert`.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.epilog = EPILOG
    parser.add_argument("source", type=Path, help="model file or folder")
    parser.add_argument(
        "-p", "--profile", action="append", required=True, metavar="PROFILE",
        help="device profile, by name or .toml file; repeat for several",
    )  # fmt: skip
    parser.add_argument(
        "--dim", action="append", default=[], metavar="NAME=SIZE",
        help="value of a symbolic input dimension (default: batch 1, 224 pixels, 128 steps); "
        "dialogue models have context (2048) and prompt (128), encoder-decoder models "
        "input (128) and output (128 or less), in tokens",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Predicts and prints."""
    require_converters()
    from converters.fit import fit

    with spoken_progress() as progress:
        report = fit(args.source, args.profile, dict(map(_dimension, args.dim)), progress)
    if args.json:
        emit_json(report)
    else:
        print(render(report))
    return 0


def render(report: FitReport) -> str:
    """The report for people."""
    dimensions = ", ".join(f"{name} = {size}" for name, size in report.dimensions.items())
    lines = [
        f"{report.source}: {report.kind}, {human_bytes(report.size_bytes)}, "
        f"{report.gflops:.3g} GFLOP per {'token' if 'decoder' in report.kind else 'call'}"
        + (f" with {dimensions}" if dimensions else "")
    ]
    if report.unknown_nodes:
        lines.append(f"{report.unknown_nodes} nodes could not be costed: predictions are too low")
    for profile in report.profiles:
        decoders = any(family.decoder for family in profile.families)
        rows = (_decoder_rows if decoders else _rows)(profile)
        header = DECODER_HEADER if decoders else HEADER
        lines += ["", _headline(profile), table(header, rows)]
        if profile.note:
            lines.append(f"note: {profile.note}")
    lines.append("")
    lines += (
        f"Ranges: what {spread.samples} variants of {len(spread.models)} benchmark models showed "
        f"on {spread.machine} with {spread.engine}."
        for spread in report.spreads.values()
    )
    return "\n".join(lines)


HEADER = ("recipe", "size", "peak memory", "latency ms", "verdict", "")
DECODER_HEADER = (
    "candidate", "size", "peak memory", "KV cache", "tokens/s", "first token ms", "verdict", "",
)  # fmt: skip


def _headline(profile: ProfileFit) -> str:
    if profile.likely is None:
        return f"{profile.profile}: nothing fits"
    return f"{profile.profile}: likely {profile.likely}"


def _rows(profile: ProfileFit) -> Iterator[tuple[str, ...]]:
    for family in profile.families:
        yield (
            family.recipe,
            _text(family.size_bytes, human_bytes),
            _text(family.peak_bytes, human_bytes),
            _text(family.latency_ms, "{:.3g}".format),
            family.verdict,
            family.reason,
        )


def _decoder_rows(profile: ProfileFit) -> Iterator[tuple[str, ...]]:
    for family in profile.families:
        if family.decoder is not None:
            yield (
                family.decoder.candidate,
                _text(family.size_bytes, human_bytes),
                _text(family.peak_bytes, human_bytes),
                family.decoder.kv,
                _text(family.decoder.tokens_per_second, "{:.3g}".format),
                _text(family.decoder.ttft_ms, "{:.3g}".format),
                family.verdict,
                family.reason,
            )


def _text(value: Range, form: Callable[[float], str]) -> str:
    return f"{form(value.value)} ({form(value.low)} - {form(value.high)})"


def _dimension(word: str) -> tuple[str, int]:
    name, equals, size = word.rpartition("=")
    if not name or not equals or not size.isdigit():
        raise InputError(f"{word!r} is not NAME=SIZE", where="--dim")
    return name, int(size)
