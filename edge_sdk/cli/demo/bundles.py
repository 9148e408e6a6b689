"""The versions that the demo brings to its fleet: converted, damaged on purpose, tuned."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edge_sdk.bundle.blobs import BlobStore, hex_of
from edge_sdk.bundle.files import writing
from edge_sdk.bundle.oci import encode
from edge_sdk.bundle.reader import Variant, open_bundle
from edge_sdk.bundle.record import VariantRecord
from edge_sdk.bundle.writer import BundleWriter
from edge_sdk.cli.demo.result import DemoBundle, DemoVariant
from edge_sdk.errors import BundleError, ConversionError

if TYPE_CHECKING:
    from converters.report.model import VariantSummary

NAME = "assistant"
_SIDES = ("lora_A", "lora_B")
DIALOGUES = 40
"""To calibrate and compare on: enough to choose by, and half a minute quicker than all."""


def unpack(folder: Path) -> tuple[Path, Path]:
    """Copies the model and its data where commands can be tried on them; gives both paths."""
    model, dialogues = folder / "model", folder / "dialogues.jsonl"
    with as_file(files("edge_sdk") / "demo_data") as data, writing(folder):
        shutil.copytree(data / "model", model)
        lines = (data / "calibration.jsonl").read_bytes().splitlines(keepends=True)
        dialogues.write_bytes(b"".join(lines[:DIALOGUES]))
    return model, dialogues


def converted(
    source: Path,
    out: Path,
    profiles: Sequence[str],
    *,
    version: str,
    data: Path,
    progress: Callable[[str], None],
    base: Path | None = None,
) -> DemoBundle:
    """Converts a model, as ``edge-sdk convert`` does.

    Args:
        source: Folder of the model.
        out: The new bundle.
        profiles: Device profiles.
        version: The bundle's version.
        data: Dialogues to calibrate and compare on.
        progress: Told what happens.
        base: Bundle of the version before, whose recipes and unchanged weights are kept.
    """
    from converters import convert

    report = convert(
        source, profiles, out, name=NAME, version=version, data=data, base=base, progress=progress
    )
    return _described(out, report.seconds, tuple(map(_variant, report.variants)))


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
        increase=best.agreement.drop,
    )


def _described(path: Path, seconds: float, variants: tuple[DemoVariant, ...] = ()) -> DemoBundle:
    bundle = open_bundle(path)
    blobs = {blob for variant in bundle.variants for blob in variant.all_blobs}
    return DemoBundle(
        path=str(path),
        version=bundle.version,
        size_bytes=sum(blob.size for blob in blobs),
        unshared_bytes=sum(variant.size for variant in bundle.variants),
        seconds=round(seconds, 1),
        variants=variants,
    )


def tuned(source: Path, out: Path) -> Path:
    """A copy of a model after tuning: one layer's MLP has a trained low-rank change added to it.

    ``examples/assistant/tuning.py`` has trained it, in PEFT's file format.
    """
    import numpy as np
    from safetensors.numpy import load_file, save_file

    with as_file(files("edge_sdk") / "demo_data" / "tuning") as data, writing(out):
        shutil.copytree(source, out)
        config = msgspec.json.decode((data / "adapter_config.json").read_bytes())
        change = load_file(data / "adapter_model.safetensors")
        weights = load_file(out / "model.safetensors")
        for name in change:
            module, is_a, _ = name.removeprefix("base_model.model.").partition(".lora_A.")
            if not is_a:
                continue
            a, b = (change[name.replace("lora_A", side)].astype(np.float32) for side in _SIDES)
            before = weights[f"{module}.weight"]
            scale = config["lora_alpha"] / config["r"]
            weights[f"{module}.weight"] = (before + scale * (b @ a)).astype(before.dtype)
        save_file(weights, out / "model.safetensors", {"format": "pt"})
    return out


def damaged(path: Path, out: Path, version: str) -> DemoBundle:
    """A copy of a bundle whose largest block of weights is half zeros.

    As if the builder's memory had failed after all had been measured: every digest is that of
    the bytes as they are, so that nothing but the self-test on a device can tell.
    """
    begun = time.monotonic()
    with BundleWriter(out) as writer:
        for variant in open_bundle(path).variants:
            if variant.platform is None:
                raise BundleError("names no platform", where=variant.profile)
            record = _damaged(variant, writer.blobs)
            writer.add_variant(msgspec.structs.replace(record, version=version), variant.platform)
        writer.finish()
    return _described(out, time.monotonic() - begun)


def _damaged(variant: Variant, blobs: BlobStore) -> VariantRecord:
    """Stores a variant's blobs with one damaged, under names that say so everywhere."""
    record = encode(variant.record)
    weights = max(variant.record.graphs[0].weights, key=lambda blob: blob.size)
    others = (blob for blob in variant.record.blobs() if blob != weights)
    names: dict[bytes, bytes] = {}
    for blob in (weights, *others):
        data = variant.blob_path(blob.digest).read_bytes()
        if blob == weights:
            data = bytes(blob.size // 2) + data[blob.size // 2 :]
        stored = blobs.put([_renamed(data, names)])
        names[hex_of(blob.digest).encode()] = hex_of(stored.digest).encode()
    return msgspec.json.decode(_renamed(record, names), type=VariantRecord)


def _renamed(data: bytes, names: Mapping[bytes, bytes]) -> bytes:
    """Graphs and records name blobs by 64 hex digits, so that new names fit where old ones were."""
    for old, new in names.items():
        data = data.replace(old, new)
    return data


def answer(path: Path, profile: str, question: str) -> str:
    """What a bundle's model says, with nothing to stop a broken one."""
    import edge_sdk

    model = edge_sdk.load(path, profile)
    try:
        return model.generate(question, max_new_tokens=40).read()
    finally:
        model.close()
