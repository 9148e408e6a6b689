"""A small bundle to test with: two variants that share weights."""

from __future__ import annotations

from pathlib import Path

from edge_sdk.bundle import record as rec
from edge_sdk.bundle.measurements import Candidate, Machine, VariantReport
from edge_sdk.bundle.oci import Platform
from edge_sdk.bundle.record import Blob, VariantRecord
from edge_sdk.bundle.writer import BundleWriter

AMD64 = Platform(os="linux", architecture="amd64")
ARMV7 = Platform(os="linux", architecture="arm", variant="v7")
SHARED = b"shared weights " * 100


def make_record(
    writer: BundleWriter, profile: str, *, head: bytes = b"head", **changes
) -> VariantRecord:
    """A record over freshly put blobs: a graph, two weights, a tokenizer and a golden case."""
    put = writer.blobs.put
    spec = rec.TensorSpec(name="x", dtype="float32", shape=("batch", 4))
    graph = rec.Graph(
        name="main",
        format="onnx",
        parts=(put([b"graph of ", profile.encode()]),),
        weights=(put([SHARED]), put([head])),
        inputs=(spec,),
        outputs=(rec.TensorSpec(name="y", dtype="float32", shape=("batch", 2)),),
    )
    array = rec.ArrayRef(blob=put([b"\0" * 16]), dtype="float32", shape=(1, 4))
    fields = {
        "name": "digits",
        "version": "1.0.0",
        "profile": profile,
        "task": "classify",
        "kind": "vision",
        "graphs": (graph,),
        "engine": rec.Engine(name="onnx", version="1.23.0"),
        "recipe": rec.Recipe(name="int8-static", steps=(rec.Step(op="cleanup"),)),
        "memory": rec.MemoryPlan(
            weights_mapped=1504,
            weights_private=100,
            activations=64,
            engine=1000,
            reference_shapes={"batch": 1},
        ),
        "agreement": rec.Agreement(
            samples=8, cosine=0.9991, max_error=0.02, drop=0.001, drop_of="top-1", top1=0.99
        ),
        "provenance": rec.Provenance(
            source_name="digits.onnx",
            source_digest="sha256:" + "1" * 64,
            data_digest=None,
            tools={"onnx": "1.18"},
            licence="Apache-2.0",
        ),
        "files": (rec.File(path="tokenizer.json", blob=put([b"{}"])),),
        "golden": (
            rec.GoldenCase(
                graph="main", inputs={"x": array}, outputs={"y": array}, atol=1e-3, rtol=1e-3
            ),
        ),
        "unquantized": (rec.Unquantized(node="head", op="Gemm", reason="too sensitive"),),
        "notes": ("measured on this machine",),
    } | changes
    return VariantRecord(**fields)


def make_report(profile: str) -> VariantReport:
    """A report with a chosen and a rejected candidate."""
    return VariantReport(
        profile=profile,
        chosen="int8-static",
        reason="smallest that held accuracy",
        candidates=(
            Candidate(
                name="int8-static",
                status="chosen",
                reason="best",
                size_bytes=1504,
                speedup=1.4,
                latency_ms=0.1,
                peak_rss_bytes=2_000_000,
            ),
            Candidate(name="fp16", status="failed", reason="the engine refused it"),
        ),
        machine=Machine(cpu="test", cores=2, architecture="amd64", engines={"onnx": "1.23.0"}),
        source_size_bytes=6000,
        source_latency_ms=0.14,
        threads=1,
        decisive=True,
        seconds=1.5,
        max_drop=0.01,
        data_origin="user",
    )


def make_bundle(
    path: Path, *, version: str = "1.0.0", head: bytes = b"head", overwrite=False
) -> Path:
    """A complete bundle with the profiles ``x86-64`` and ``board``."""
    with BundleWriter(path, overwrite=overwrite) as writer:
        card: Blob = writer.blobs.put([b"# Digits\n"])
        for profile, platform in (("x86-64", AMD64), ("board", ARMV7)):
            record = make_record(writer, profile, head=head, version=version)
            writer.add_variant(record, platform, make_report(profile), {"README.md": card})
        return writer.finish()
