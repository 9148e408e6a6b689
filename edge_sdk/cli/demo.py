"""``edge-sdk demo``: a real model, converted for several devices and run from its bundle."""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edge_sdk.bundle.files import writing
from edge_sdk.bundle.reader import Bundle, open_bundle
from edge_sdk.cli.convert import require_converters, spoken_progress
from edge_sdk.cli.output import emit_json, human_bytes, table
from edge_sdk.errors import ConversionError, InputError

if TYPE_CHECKING:
    from converters.report.model import VariantSummary
    from device_profiles.schema import Profile
    from edge_sdk.runtime.inputs import Array

EPILOG = """\
examples:
  edge-sdk demo
  edge-sdk demo --out digits-demo --json
"""
SHADES = " .:-=+*#%@"
DRAWN = 4
"""Held-out images that are drawn."""


class DemoVariant(msgspec.Struct, frozen=True, kw_only=True):
    """What was chosen for one profile.

    Attributes:
        profile: The device profile.
        recipe: The candidate that ships.
        size_bytes: Its graph and weights.
        size_ratio: The source's size over that.
        speedup: Source latency over the variant's.
        speedup_measured: Whether it was measured here or is the profile's prediction.
        drop: Accuracy lost on the evaluation half of the data.
    """

    profile: str
    recipe: str
    size_bytes: int
    size_ratio: float
    speedup: float | None
    speedup_measured: bool
    drop: float


class SharedBlobs(msgspec.Struct, frozen=True, kw_only=True):
    """Blobs that the same variants use; each is on disk once."""

    profiles: tuple[str, ...]
    blobs: int
    size_bytes: int


class HeldOut(msgspec.Struct, frozen=True, kw_only=True):
    """The variant for this machine on images that neither training nor conversion saw.

    Attributes:
        profile: Whose variant it was.
        samples: Number of images.
        accuracy: Share of images it classified as labelled.
        source_accuracy: The same of the model it was made from.
        ms_per_image: Median latency of one image.
        source_ms_per_image: The same of the model it was made from, timed in turn.
    """

    profile: str
    samples: int
    accuracy: float
    source_accuracy: float
    ms_per_image: float
    source_ms_per_image: float


class DemoResult(msgspec.Struct, frozen=True, kw_only=True):
    """What ``edge-sdk demo --json`` prints.

    Attributes:
        folder: Where everything is.
        source: The model that was converted.
        bundle: The bundle made of it.
        size_bytes: The bundle's size.
        unshared_bytes: What its variants would take if each had blobs of its own.
        variants: One per profile.
        shared: Blobs in more than one variant.
        left_out: Built-in profiles whose engines this version does not write for.
        held_out: How the bundle did.
        seconds: Time taken.
    """

    folder: str
    source: str
    bundle: str
    size_bytes: int
    unshared_bytes: int
    variants: tuple[DemoVariant, ...]
    shared: tuple[SharedBlobs, ...]
    left_out: tuple[str, ...]
    held_out: HeldOut
    seconds: float
    schema: str = "org.edge-sdk.demo/1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.epilog = EPILOG
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="new folder for it (default: a temporary one)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Converts, runs, and says what happened."""
    require_converters()
    started = time.monotonic()
    folder = _new_folder(args.out)
    source = _unpack(folder)
    convertible, left_out = _profiles()
    with spoken_progress() as progress:
        variants = _convert(folder, convertible, progress)
        progress("classifying the held-out images")
        held_out, drawing = _classify(folder)
    bundle = open_bundle(folder / "digits.bundle")
    shared = _shared(bundle)
    result = DemoResult(
        folder=str(folder),
        source=str(source),
        bundle=str(bundle.path),
        size_bytes=sum(group.size_bytes for group in shared),
        unshared_bytes=sum(variant.size for variant in bundle.variants),
        variants=variants,
        shared=tuple(group for group in shared if len(group.profiles) > 1),
        left_out=tuple(left_out),
        held_out=held_out,
        seconds=round(time.monotonic() - started, 1),
    )
    if args.json:
        emit_json(result)
    else:
        print("\n\n".join(_for_people(result, drawing)))
    return 0


def _new_folder(out: Path | None) -> Path:
    if out is None:
        return Path(tempfile.mkdtemp(prefix="edge-sdk-demo-"))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError("is not empty", where=str(out), remedy="give a new folder")
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    return out


def _unpack(folder: Path) -> Path:
    """Copies the model and its data where commands can be tried on them; returns the model."""
    for file in (files("edge_sdk") / "demo_data").iterdir():
        with writing(folder):
            (folder / file.name).write_bytes(file.read_bytes())
    return folder / "digits.onnx"


def _profiles() -> tuple[list[str], list[str]]:
    """Built-in profiles that can be converted for, and those that cannot."""
    from device_profiles.loader import BUILTIN, profiles

    built_in = profiles(only={path.stem for path in BUILTIN.glob("*.toml")})
    convertible = [name for name, profile in built_in.items() if _is_convertible(profile)]
    return convertible, [name for name in built_in if name not in convertible]


def _is_convertible(profile: Profile) -> bool:
    from converters.target import target_engine

    try:
        target_engine(profile)
    except ConversionError:
        return False
    return True


def _convert(
    folder: Path, profiles: Sequence[str], progress: Callable[[str], None]
) -> tuple[DemoVariant, ...]:
    from converters import convert

    report = convert(
        folder / "digits.onnx",
        profiles,
        folder / "digits.bundle",
        data=folder / "calibration.npz",
        progress=progress,
    )
    return tuple(map(_variant, report.variants))


def _variant(summary: VariantSummary) -> DemoVariant:
    from converters.report.model import chosen

    report = summary.report
    best = chosen(report)
    if best is None or best.agreement is None:
        raise ConversionError("ships without having been compared", where=report.profile)
    return DemoVariant(
        profile=report.profile,
        recipe=best.name,
        size_bytes=best.size_bytes,
        size_ratio=round(report.source_size_bytes / best.size_bytes, 2),
        speedup=best.speedup if best.speedup is not None else best.predicted_speedup,
        speedup_measured=best.speedup is not None,
        drop=best.agreement.drop,
    )


def _classify(folder: Path) -> tuple[HeldOut, str]:
    """Source and bundle classify each held-out image in turn; also draws the first ones."""
    import numpy as np

    import edge_sdk
    from edge_sdk.cli.run import read_npz
    from edge_sdk.runtime.engine import SessionOptions, find_engine
    from edge_sdk.runtime.sessions import default_threads

    model = edge_sdk.load(folder / "digits.bundle")
    profile = model.record.profile
    options = SessionOptions(threads=default_threads(profile))
    source = find_engine("onnx").open(folder / "digits.onnx", options)
    data = read_npz(folder / "heldout.npz")
    times, answers = np.zeros((2, len(data["image"]))), np.zeros((2, len(data["image"])), int)
    for number, image in enumerate(data["image"]):
        for which, call in enumerate((model.run, source.run)):
            begun = time.perf_counter()
            outputs = call({"image": image[None]})
            times[which, number] = time.perf_counter() - begun
            answers[which, number] = outputs["logits"].argmax()
    accuracy = (answers == data["labels"]).mean(axis=1)
    ms = np.median(times, axis=1) * 1e3
    result = HeldOut(
        profile=profile,
        samples=len(data["image"]),
        accuracy=float(accuracy[0]),
        source_accuracy=float(accuracy[1]),
        ms_per_image=round(float(ms[0]), 4),
        source_ms_per_image=round(float(ms[1]), 4),
    )
    return result, _drawing(data["image"], answers[0].tolist())


def _shared(bundle: Bundle) -> tuple[SharedBlobs, ...]:
    """Every blob of a bundle, by who uses it; the largest group first."""
    users = defaultdict(list)
    for variant in bundle.variants:
        for blob in variant.all_blobs:
            users[blob].append(variant.profile)
    count: Counter[tuple[str, ...]] = Counter()
    size: Counter[tuple[str, ...]] = Counter()
    for blob, profiles in users.items():
        count[tuple(profiles)] += 1
        size[tuple(profiles)] += blob.size
    return tuple(
        SharedBlobs(profiles=profiles, blobs=count[profiles], size_bytes=total)
        for profiles, total in size.most_common()
    )


def _for_people(result: DemoResult, drawing: str) -> Iterator[str]:
    """What was done, paragraph by paragraph."""
    held_out = result.held_out
    left_out = ", ".join(result.left_out)
    yield f"Converted {result.source} for {len(result.variants)} profiles." + (
        f" Left out: {left_out} (LiteRT, which this version does not write)." if left_out else ""
    )
    yield table(
        ("profile", "recipe", "size", "smaller", "speed", "drop"), map(_row, result.variants)
    )
    yield (
        "Speeds marked ~ are predicted by the profile, whose CPU or engine is not here. Each\n"
        "variant is the best of several candidates; report.html in the bundle shows them all."
    )
    yield (
        f"The bundle takes {human_bytes(result.size_bytes)} instead of "
        f"{human_bytes(result.unshared_bytes)}, because variants share blobs:"
    )
    yield table(
        ("blobs", "size", "used by"),
        [(str(s.blobs), human_bytes(s.size_bytes), ", ".join(s.profiles)) for s in result.shared],
    )
    yield (
        f"edge_sdk.load chose {held_out.profile} for this machine. "
        f"On {held_out.samples} held-out images:"
    )
    yield table(
        ("", "right", "ms per image"),
        (
            ("bundle", f"{held_out.accuracy:.1%}", f"{held_out.ms_per_image:.3f}"),
            ("source", f"{held_out.source_accuracy:.1%}", f"{held_out.source_ms_per_image:.3f}"),
        ),
    )
    yield drawing
    yield f"{result.seconds:.0f} s in all. Try next:"
    yield "\n".join(f"  {line}" for line in _try_next(Path(result.folder)))


def _row(variant: DemoVariant) -> tuple[str, ...]:
    speed = "-" if variant.speedup is None else f"{variant.speedup:.2f}x"
    return (
        variant.profile,
        variant.recipe,
        human_bytes(variant.size_bytes),
        f"{variant.size_ratio:.2f}x",
        speed if variant.speedup_measured else f"~{speed}",
        f"{variant.drop:.2g}",
    )


def _drawing(images: Array, predictions: Sequence[int]) -> str:
    """The first images side by side, two characters per pixel, with what they were taken for."""
    levels = (images[:DRAWN, 0] * (len(SHADES) - 1)).round().astype(int)
    rows = (
        "   ".join("".join(SHADES[v] * 2 for v in line) for line in row)
        for row in levels.transpose(1, 0, 2)
    )
    width = 2 * images.shape[-1]
    answers = "   ".join(f"it is a {digit}".center(width) for digit in predictions[:DRAWN])
    return "\n".join(line.rstrip() for line in (*rows, answers))


def _try_next(folder: Path) -> Iterator[str]:
    yield shlex.join(["cd", str(folder.absolute())])
    for words in (
        "inspect digits.bundle --profile board-512mb",
        "bench digits.bundle --against digits.onnx",
        "fit digits.onnx -p board-512mb",
        "run digits.bundle --input heldout.npz --output logits.npz",
    ):
        yield f"{_command()} {words}"
    yield "python -m webbrowser digits.bundle/report.html"


def _command() -> str:
    """How to call ``edge-sdk`` of this environment in the user's shell."""
    script = Path(sys.executable).with_name("edge-sdk")
    if shutil.which("edge-sdk") == str(script):
        return "edge-sdk"
    found = [str(script)] if script.exists() else [sys.executable, "-m", "edge_sdk.cli.main"]
    return shlex.join(found)
