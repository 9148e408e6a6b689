"""``edge-sdk inspect``: the variants of a bundle, what they share, and why they are so."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from edge_sdk.bundle.measurements import Candidate, VariantReport
from edge_sdk.bundle.reader import Bundle, Variant, open_bundle
from edge_sdk.bundle.record import (
    Agreement,
    Blob,
    Decoding,
    Engine,
    Generation,
    Step,
    TensorSpec,
    VariantRecord,
)
from edge_sdk.cli.output import emit_json, human_bytes, table

LISTED = 8  # values of a step's option that are shown


class FileView(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a variant, and the other profiles whose variants have the same bytes."""

    path: str
    digest: str
    size: int
    shared_with: tuple[str, ...]


class VariantView(msgspec.Struct, frozen=True, kw_only=True):
    """One variant: ``size`` is ``own`` (only this variant needs them) plus ``shared`` bytes."""

    profile: str
    platform: str
    digest: str
    size: int
    own: int
    shared: int
    files: tuple[FileView, ...]
    record: VariantRecord
    report: VariantReport | None


class BundleView(msgspec.Struct, frozen=True, kw_only=True):
    """What ``edge-sdk inspect --json`` prints; ``size`` counts shared blobs once."""

    name: str
    version: str
    digest: str
    size: int
    variants: tuple[VariantView, ...]
    schema: str = "org.edge-sdk.inspect/1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="bundle, or STORE#name:version")
    parser.add_argument("--profile", help="show all of one variant")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Prints the bundle; its structure is verified on the way, its weights are not read."""
    bundle = open_bundle(args.bundle)
    chosen = bundle.variants if args.profile is None else (bundle.variant(args.profile),)
    view = _view(bundle, chosen)
    if args.json:
        emit_json(view)
        return 0
    print(f"{view.name} {view.version}  {human_bytes(view.size)}, variants: {len(bundle.variants)}")
    print(f"{view.digest}\n")
    print(_overview(view.variants))
    adapters = dict.fromkeys(each.name for v in view.variants for each in v.record.adapters)
    if args.profile is None:
        if adapters:
            print(f"\nAdapters: {', '.join(adapters)}")
        print("\nOne variant in full: --profile PROFILE")
        return 0
    for title, body in _details(view.variants[0]):
        if body:
            print(f"\n{title}\n" + "\n".join(f"  {line}" for line in body.splitlines()))
    return 0


def _view(bundle: Bundle, chosen: Sequence[Variant]) -> BundleView:
    users = Counter(blob for variant in bundle.variants for blob in variant.all_blobs)
    return BundleView(
        name=bundle.name,
        version=bundle.version,
        digest=bundle.descriptor.digest,
        size=sum(blob.size for blob in users),
        variants=tuple(_variant_view(bundle, variant, users) for variant in chosen),
    )


def _variant_view(bundle: Bundle, variant: Variant, users: Counter[Blob]) -> VariantView:
    own = sum(blob.size for blob in variant.all_blobs if users[blob] == 1)
    platform = variant.platform
    parts = (platform.os, platform.architecture, platform.variant) if platform else ()
    return VariantView(
        profile=variant.profile,
        platform="/".join(part for part in parts if part),
        digest=variant.digest,
        size=variant.size,
        own=own,
        shared=variant.size - own,
        files=tuple(
            FileView(
                path=path,
                digest=layer.digest,
                size=layer.size,
                shared_with=tuple(
                    other.profile
                    for other in bundle.variants
                    if other is not variant and layer.blob in other.all_blobs
                ),
            )
            for path, layer in variant.files.items()
        ),
        record=variant.record,
        report=variant.report,
    )


def _overview(variants: Sequence[VariantView]) -> str:
    header = (
        "profile", "platform", "engine", "recipe", "size", "own", "shared", "drop", "cosine",
        "speedup", "peak memory",
    )  # fmt: skip
    return table(header, [_overview_row(variant) for variant in variants])


def _overview_row(view: VariantView) -> tuple[str, ...]:
    record = view.record
    candidates = view.report.candidates if view.report else ()
    speedups = [_speedup(c) for c in candidates if c.status == "chosen"]
    return (
        view.profile,
        view.platform or "-",
        record.engine.name,
        record.recipe.name + (" (forced)" if record.recipe.forced else ""),
        human_bytes(view.size),
        human_bytes(view.own),
        human_bytes(view.shared),
        f"{record.agreement.drop:.2g}",
        f"{record.agreement.cosine:.5f}",
        speedups[0] if speedups else "-",
        human_bytes(record.memory.peak),
    )


def _details(view: VariantView) -> Iterator[tuple[str, str]]:
    """Titles and bodies of the sections about one variant; those with no body are left out."""
    record = view.record
    yield "Graphs", _graphs(record)
    if record.generation is None:
        yield "Inputs", _specs(record.inputs)
        yield "Outputs", _specs(record.outputs)
    else:  # which feeds its graphs itself
        yield "Dialogue", _dialogue(record.generation)
        yield "Adapters", _adapters(record)
    wires = (f"{w.source_graph}.{w.output} -> {w.target_graph}.{w.input}" for w in record.wiring)
    yield "Wiring", "\n".join(wires)
    yield "State", "\n".join(f"{state.output} -> {state.input}" for state in record.states)
    yield "Before", _steps(record.preprocess)
    yield "After", _steps(record.postprocess)
    yield "Engine", _engine(record.engine)
    yield "Memory plan", _memory(record)
    yield f"Recipe: {record.recipe.name}", _steps(record.recipe.steps)
    if record.decoding is not None:
        yield "Writing", _writing(record.decoding)
        for graph, recipe in record.decoding.recipes.items():
            yield f"Recipe of {graph}: {recipe.name}", _steps(recipe.steps)
    yield "Agreement with the source", _agreement(record.agreement)
    if view.report:
        yield _report_title(view.report), _candidates(view.report)
    kept = (f"{node.node} ({node.op}): {node.reason}" for node in record.unquantized)
    yield "Left in higher precision", "\n".join(kept)
    yield "Provenance", _provenance(record)
    yield "Files", _files(view.files)
    yield "Notes", "\n".join(record.notes)


def _graphs(record: VariantRecord) -> str:
    return table(
        ("graph", "format", "graph bytes", "weight bytes"),
        [
            (
                graph.name,
                graph.format,
                human_bytes(sum(blob.size for blob in graph.parts)),
                human_bytes(sum(blob.size for blob in graph.weights)),
            )
            for graph in record.graphs
        ],
    )


def _dialogue(generation: Generation) -> str:
    lines = [
        f"context        {generation.context} tokens",
        f"vocabulary     {generation.vocab} tokens",
        f"KV cache       {generation.layers} layers of {generation.kv_heads} heads"
        f" x {generation.head_dim}",
        f"chat template  {'its own' if generation.chat_template else 'none'}",
    ]
    return "\n".join(lines)


def _writing(decoding: Decoding) -> str:
    lines = [
        f"longest output  {decoding.context} tokens",
        f"by default      {decoding.max_length or decoding.context} tokens",
        f"languages       {', '.join(decoding.languages) or 'not told'}",
        f"tasks           {', '.join(decoding.tasks) or 'not told'}",
    ]
    return "\n".join(lines)


def _adapters(record: VariantRecord) -> str:
    rows = [
        (
            adapter.name,
            str(len(adapter.arrays) // 2),
            human_bytes(sum(blob.size for blob in adapter.parts)),
        )
        for adapter in record.adapters
    ]
    return table(("adapter", "nodes", "size"), rows) if rows else ""


def _specs(specs: Sequence[TensorSpec]) -> str:
    return "\n".join(
        f"{spec.name}  {spec.dtype}{_shape(spec)}{'' if spec.required else '  optional'}"
        for spec in specs
    )


def _shape(spec: TensorSpec) -> str:
    return " of any rank" if spec.shape is None else f"[{', '.join(map(str, spec.shape))}]"


def _memory(record: VariantRecord) -> str:
    plan = record.memory
    rows = [
        ("weights, mapped from files", plan.weights_mapped),
        ("weights, packed by the engine", plan.weights_private),
        ("activations", plan.activations),
        ("engine", plan.engine),
        ("predicted peak", plan.peak),
    ]
    if plan.kv_per_token:
        rows.append(("KV cache per token", plan.kv_per_token))
    lines = [f"{name:<30}{human_bytes(size):>10}" for name, size in rows]
    if plan.reference_shapes:
        lines.append(f"at {_options(plan.reference_shapes)}")
    return "\n".join(lines)


def _agreement(agreement: Agreement) -> str:
    figures = {
        agreement.drop_of: agreement.drop,
        "cosine": agreement.cosine,
        "max error": agreement.max_error,
        "top-1": agreement.top1,
        "nearest neighbour": agreement.nearest,
    }
    lines = [f"{name:<20}{_number(value, '.5g')}" for name, value in figures.items()]
    lines += [
        f"{name:<20}{source:.5g} -> {variant:.5g}"
        for name, (source, variant) in agreement.metrics.items()
    ]
    return "\n".join([f"over {agreement.samples} samples", *lines])


def _report_title(report: VariantReport) -> str:
    machine = report.machine
    decisive = "" if report.decisive else ", not decisive: engine or ISA of the profile is not here"
    return (
        f"Candidates: {report.chosen}, because {report.reason}\n"
        f"  measured on {machine.cpu} ({machine.architecture}), threads: {report.threads}{decisive}"
    )


def _candidates(report: VariantReport) -> str:
    header = (
        "candidate", "engine", "status", "size", "ms", "speedup", "drop", "cosine", "peak",
        "reason",
    )  # fmt: skip
    rows = [_candidate_row(candidate) for candidate in report.candidates]
    if not any(candidate.decoder for candidate in report.candidates):
        return table(header, rows)
    figures = [_decoder_figures(candidate) for candidate in report.candidates]
    return table(
        (*header[:5], "tok/s", "perplexity", *header[5:]),
        [(*row[:5], *own, *row[5:]) for row, own in zip(rows, figures, strict=True)],
    )


def _decoder_figures(candidate: Candidate) -> tuple[str, str]:
    found = candidate.decoder
    speed = _number(found.tokens_per_second if found else None, ".1f")
    return speed, _number(found.perplexity if found else None, ".4g")


def _candidate_row(candidate: Candidate) -> tuple[str, ...]:
    agreement = candidate.agreement
    rss = candidate.peak_rss_bytes
    return (
        candidate.name,
        candidate.engine,
        candidate.status,
        human_bytes(candidate.size_bytes) if candidate.size_bytes else "-",
        _number(candidate.latency_ms, ".3g"),
        _speedup(candidate),
        _number(agreement.drop if agreement else None, ".2g"),
        _number(agreement.cosine if agreement else None, ".5f"),
        human_bytes(rss) if rss else "-",
        candidate.reason,
    )


def _provenance(record: VariantRecord) -> str:
    origin = record.provenance
    lines = [
        f"source   {origin.source_name}  {origin.source_digest}",
        f"data     {origin.data_origin}  {origin.data_digest or '-'}",
        f"tools    {_options(origin.tools)}",
        f"licence  {origin.licence or 'unknown'}",
    ]
    if origin.source_metrics:
        lines.append(f"claimed  {_options(origin.source_metrics)}")
    return "\n".join(lines)


def _files(views: Sequence[FileView]) -> str:
    """Named files one by one; blobs named by their digest together, by who shares them."""
    groups: dict[tuple[str, tuple[str, ...]], list[FileView]] = {}
    for view in views:
        folder, _, name = view.path.rpartition("/")
        path = f"{folder}/<digest>" if view.digest.endswith(name) else view.path
        groups.setdefault((path, view.shared_with), []).append(view)
    rows = [
        (
            path,
            str(len(group)),
            human_bytes(sum(view.size for view in group)),
            ", ".join(shared_with) or "-",
        )
        for (path, shared_with), group in groups.items()
    ]
    return table(("path", "blobs", "size", "shared with"), rows)


def _engine(engine: Engine) -> str:
    parts = (
        f"{engine.name} {engine.version}",
        ", ".join(engine.providers),
        _options(engine.options),
    )
    return "\n".join(part for part in parts if part)


def _steps(steps: Sequence[Step]) -> str:
    return "\n".join(f"{step.op}  {_options(step.options)}".rstrip() for step in steps)


def _options(options: Mapping[str, object]) -> str:
    return ", ".join(f"{key}={_short(value)}" for key, value in options.items())


def _short(value: object) -> str:
    """A value for people; of many class names the first few."""
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) > LISTED:
        return f"[{', '.join(map(repr, value[:LISTED]))}, … {len(value)} in all]"
    return str(value)


def _speedup(candidate: Candidate) -> str:
    """A measured speedup, or ``~`` and what the profile's rules predict."""
    if candidate.speedup is not None:
        return f"{candidate.speedup:.2f}"
    predicted = candidate.predicted_speedup
    return "-" if predicted is None else f"~{predicted:.2f}"


def _number(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)
