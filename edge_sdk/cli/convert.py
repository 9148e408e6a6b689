"""``edge-sdk convert``: a model in, one verified bundle out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edge_sdk.cli.output import emit_json, note
from edge_sdk.errors import InputError

if TYPE_CHECKING:
    from converters.on_device import DeviceMeasurer
    from converters.report import Report

EPILOG = """\
examples:
  edge-sdk convert model.onnx -o model.bundle -p x86-64 -p board-512mb --data samples.npz
  edge-sdk convert encoder.onnx -o encoder.bundle -p x86-64 --data sentences.jsonl
  edge-sdk convert vad.onnx -o vad.bundle -p arm64 --state stateN=state --fix sr=16000
  edge-sdk convert SmolLM2-360M-Instruct -o chat.bundle -p board-512mb --data turns.jsonl
  edge-sdk convert assistant/ -o chat.bundle -p arm64 --adapter terse=terse/ --adapter kind=kind/
  edge-sdk convert tuned.onnx -o v2.bundle -p x86-64 --base v1.bundle --version 1.1.0
  edge-sdk convert model.onnx -o model.bundle -p arm64 --on thing:gate-7

Every candidate is compared with the fp32 source on the data; one that loses more than
--max-drop, needs more memory than the profile's budget, or is slower than its source
does not ship. The report is in the bundle: `edge-sdk inspect BUNDLE`, or report.html.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.epilog = EPILOG
    parser.add_argument(
        "source",
        type=Path,
        help="model: .onnx (with external data), .tflite, .gguf, .pt2, or a Hugging Face folder",
    )
    parser.add_argument("-o", "--out", type=Path, required=True, help="directory of the bundle")
    parser.add_argument(
        "-p", "--profile", action="append", required=True, metavar="PROFILE",
        help="device profile, by name or .toml file; repeat for several",
    )  # fmt: skip
    parser.add_argument("--task", help="what the model does (default: detected)")
    parser.add_argument("--name", help="name of the bundle (default: the model's)")
    parser.add_argument("--version", default="1.0.0", help="version of the bundle (default: 1.0.0)")
    parser.add_argument(
        "--data", type=Path, metavar="FILE|DIR",
        help=".npz, folder of .npz or .jsonl to calibrate and evaluate on (default: generated)",
    )  # fmt: skip
    parser.add_argument(
        "--max-drop", type=float, metavar="X",
        help="most a variant may lose (default: 0.01; relative 0.05 for perplexity)",
    )  # fmt: skip
    parser.add_argument("--metric", help="task metric for labelled data, or module:function")
    parser.add_argument("--recipe", type=Path, metavar="FILE", help="TOML recipe to force")
    parser.add_argument("--base", type=Path, metavar="BUNDLE", help="keep its recipe and scales")
    parser.add_argument(
        "--state", action="append", metavar="OUT=IN",
        help="output that becomes an input of the next call; repeat for several",
    )  # fmt: skip
    parser.add_argument(
        "--fix", action="append", metavar="INPUT=VALUE",
        help="scalar input that never changes, so that its branches can be resolved",
    )  # fmt: skip
    parser.add_argument(
        "--adapter", action="append", metavar="NAME=DIR",
        help="LoRA adapter of a dialogue model, as PEFT saves it; repeat for several",
    )  # fmt: skip
    parser.add_argument(
        "--context", type=int, metavar="N",
        help="tokens of context to keep (default: the model's, at most 32768)",
    )  # fmt: skip
    parser.add_argument(
        "--on", metavar="thing:NAME",
        help="let a device of the fleet measure the finalists; its figures decide",
    )  # fmt: skip
    parser.add_argument(
        "--save-profile", type=Path, metavar="FILE.toml",
        help="with --on: write the profile with the speedups that the device measured",
    )  # fmt: skip
    parser.add_argument("--server", metavar="URL", help="with --on: the fleet's server")
    parser.add_argument("--token", metavar="TEXT", help="what that server asks for, if it does")
    parser.add_argument("--ca", metavar="FILE", help="certificates to trust for that server")
    parser.add_argument("--force", action="store_true", help="replace an existing bundle")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    """Converts and prints the report."""
    require_converters()
    from converters import convert
    from converters.report import render_text

    if args.save_profile and not args.save_profile.absolute().parent.is_dir():
        raise InputError(
            "no such folder", where=str(args.save_profile.parent), remedy="create it first"
        )
    with spoken_progress() as progress:
        measurer = _device(args, progress)
        report = convert(
            args.source,
            args.profile,
            args.out,
            task=args.task,
            name=args.name,
            version=args.version,
            data=args.data,
            max_drop=args.max_drop,
            metric=args.metric,
            recipe=args.recipe,
            base=args.base,
            states=_pairs(args.state, "--state", "OUT=IN") if args.state else None,
            fixed=_numbers(args.fix),
            adapters=_pairs(args.adapter, "--adapter", "NAME=DIR") if args.adapter else None,
            context=args.context,
            overwrite=args.force,
            progress=progress,
            measurer=measurer,
        )
    if args.save_profile:
        _save_profile(args.save_profile, args.profile[0], report)
    if args.json:
        emit_json(report)
    else:
        print(render_text(report))
    return 0


def _device(args: argparse.Namespace, say: Callable[[str], None]) -> DeviceMeasurer | None:
    """The device that ``--on`` names."""
    if args.on is None:
        if args.save_profile:
            raise InputError(
                "only a device refines a profile", where="--save-profile", remedy="add --on"
            )
        return None
    if len(args.profile) > 1:
        raise InputError(
            f"one device cannot measure for {len(args.profile)} profiles",
            where="--on",
            remedy="convert for one profile at a time",
        )
    from edge_sdk.cli.fleet import server_of
    from edge_sdk.cli.on_thing import OnThing

    return OnThing(args.on, *server_of(args), args.ca, say)


def _save_profile(path: Path, name: str, report: Report) -> None:
    from converters.on_device import refined
    from device_profiles.loader import load_profile
    from device_profiles.parse import to_toml
    from edge_sdk.bundle import files

    [variant] = report.variants
    if not any(row.device and not row.device.error for row in variant.report.candidates):
        note(f"{path} was not written: the device measured nothing")
        return
    text = to_toml(refined(load_profile(name), variant.report.candidates))
    with files.writing(path), files.temporary(path.absolute().parent) as file:
        file.write(text.encode())
        files.commit(file, path)


def require_converters() -> None:
    """Explains how to install the workstation side where it is missing.

    Raises:
        InputError: The ``convert`` extra is not installed.
    """
    from importlib.util import find_spec

    missing = [name for name in ("onnx", "onnx_ir", "onnxscript") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"converting needs {', '.join(missing)}",
            remedy="pip install 'edge-sdk[all]' on a workstation with Python 3.11 or newer",
        )


@contextmanager
def spoken_progress() -> Iterator[Callable[[str], None]]:
    """What happens, on stderr: one live line on a terminal, plain lines elsewhere."""
    if not sys.stderr.isatty():
        yield note
        return
    from rich.console import Console

    with Console(stderr=True).status("starting") as status:
        yield status.update


def _pairs(words: Sequence[str], option: str, form: str) -> Mapping[str, str]:
    pairs = [word.partition("=") for word in words]
    for word, (left, _, right) in zip(words, pairs, strict=True):
        if not left or not right:
            raise InputError(f"{word!r} is not {form}", where=option)
    found = {left: right for left, _, right in pairs}
    if len(found) < len(pairs):
        raise InputError("the same name is given twice", where=option)
    return found


def _numbers(words: Sequence[str] | None) -> Mapping[str, float] | None:
    if not words:
        return None
    try:
        return {k: float(v) for k, v in _pairs(words, "--fix", "INPUT=VALUE").items()}
    except ValueError as error:
        raise InputError(str(error), where="--fix", remedy="give a number or 0 / 1") from None
