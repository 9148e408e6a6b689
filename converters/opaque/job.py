"""One opaque file's conversion: it is checked, timed and packed as it is."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np

from converters.data import load_data
from converters.dataset import Array
from converters.hybrid import check_scales
from converters.job import Say, tools
from converters.litert_file import parts
from converters.materialize import open_path
from converters.measure import latency, machine, peak_rss
from converters.memory_litert import ENGINE_BYTES, started
from converters.opaque.source import OpaqueSource
from converters.package import store_array
from converters.report import VariantSummary
from converters.request import Request
from converters.target import HOST_ENGINES, Target, targets
from device_profiles.machine import detect_machine
from device_profiles.schema import Profile
from edge_sdk.bundle.blobs import BlobStore
from edge_sdk.bundle.measurements import Candidate, VariantReport
from edge_sdk.bundle.reader import Bundle
from edge_sdk.bundle.record import (
    Agreement,
    Engine,
    GoldenCase,
    Graph,
    MemoryPlan,
    Provenance,
    Recipe,
    VariantRecord,
)
from edge_sdk.bundle.writer import BundleWriter
from edge_sdk.errors import ConversionError, InputError, SourceError
from edge_sdk.runtime.engine import SessionOptions, find_engine

CASES = 2
TIMED_SECONDS = 0.5
TOLERANCE = 5e-2  # of the largest value: kernels of integers differ by whole steps
FREE_SIZE = 16  # of a free dimension other than the batch
Call = Mapping[str, Array]


class OpaqueJob:
    """One conversion of an opaque file: what all of its profiles share.

    Args:
        request: What to do.
        source: The file.
        say: Told what happens.
        on_device: Whether the user asked for a device to measure candidates.

    Attributes:
        name: Name of the bundle.

    Raises:
        InputError: An option is given that has no meaning for a file that stays as it is.
        EngineError: The file does not run.
        SourceError: What it computes depends on the calls before.
    """

    def __init__(
        self, request: Request, source: OpaqueSource, say: Say, *, on_device: bool = False
    ) -> None:
        _check_options(request, source, on_device=on_device)
        self.name = request.name or source.name
        self._request = request
        self._source = source
        self._say = say
        self._engine = HOST_ENGINES["tflite"]
        self._session = open_path(source.path, SessionOptions(), self._engine)
        self._calls = self._some_calls()
        self._golden = [(call, self._session.run(call)) for call in self._calls]
        for call, expected in self._golden:
            found = self._session.run(call)
            if any(not np.array_equal(found[n], expected[n], equal_nan=True) for n in expected):
                raise SourceError(
                    "keeps state within the file between calls, so nothing can verify a device",
                    where=str(source.path),
                    remedy="export it with its state as inputs and outputs",
                )

    def variant(
        self, profile: Profile, writer: BundleWriter, forced: Recipe | None, base: Bundle | None
    ) -> VariantSummary:
        """Packs the file for one profile; a base has nothing to say about it.

        Raises:
            ConversionError: None of the profile's engines reads it or computes it right, or it
                has too little memory.
        """
        started = time.monotonic()
        target = next((t for t in targets(profile) if t.format == self._source.format), None)
        if target is None:
            raise ConversionError(
                f"none of its engines reads .{self._source.format} files, and this one has no "
                f"other form: {self._source.why}",
                where=f"profile {profile.name!r}",
                remedy="choose a profile with the engine litert, or export the model to ONNX",
            )
        if profile.quantization[self._source.kind].scales_apart:
            check_scales(self._source.path)
        plan = self._memory()
        budget = profile.memory.model_budget_mib << 20
        if plan.peak > budget:
            raise ConversionError(
                f"peak memory {plan.peak / 2**20:.0f} MiB exceeds the budget of "
                f"{budget / 2**20:.0f} MiB",
                where=f"profile {profile.name!r}",
                remedy="choose a larger profile",
            )
        record = self._record(profile, target, writer.blobs, plan)
        report = self._report(profile, target, record, started)
        added = writer.add_variant(record, profile.platform, report)
        return VariantSummary(digest=added.digest, report=report, notes=record.notes)

    def _some_calls(self) -> Sequence[Call]:
        source, data = self._source, self._request.data
        if data is None:
            return [self._random(seed) for seed in range(CASES)]
        found = load_data(data, list(source.inputs), (), None, ())
        return [dict(call) for sample in found.samples for call in sample][:CASES]

    def _random(self, seed: int) -> Call:
        rng, feeds = np.random.default_rng(seed), {}
        for spec in self._source.inputs:
            sizes = enumerate(spec.shape or ())
            shape = [n if isinstance(n, int) else FREE_SIZE if axis else 1 for axis, n in sizes]
            whole = np.issubdtype(np.dtype(spec.dtype), np.integer)
            values = rng.integers(0, 100, shape) if whole else rng.random(shape)
            feeds[spec.name] = values.astype(spec.dtype)
        return feeds

    def _memory(self) -> MemoryPlan:
        size = self._source.path.stat().st_size
        values = [a.nbytes for call in self._golden for side in call for a in side.values()]
        plan = MemoryPlan(
            weights_mapped=size,
            weights_private=size,  # what the engine packs; no graph says which part that is
            activations=2 * max(values, default=0),
            engine=ENGINE_BYTES,
        )
        return started(plan)

    def _record(
        self, profile: Profile, target: Target, blobs: BlobStore, plan: MemoryPlan
    ) -> VariantRecord:
        source = self._source
        data = source.path.read_bytes()
        return VariantRecord(
            name=self.name,
            version=self._request.version,
            profile=profile.name,
            task=source.task,
            kind=source.kind,
            graphs=(
                Graph(
                    name="main",
                    format=source.format,
                    parts=tuple(blobs.put([part]) for part in parts(data)),
                    inputs=source.inputs,
                    outputs=source.outputs,
                ),
            ),
            engine=Engine(
                name=target.choice.name,
                providers=target.choice.providers,
                options=target.choice.options,
                version=find_engine(self._engine).version() or "",
            ),
            recipe=Recipe(name=target.named("source"), engine=target.choice.name),
            memory=plan,
            agreement=Agreement(
                samples=len(self._golden), cosine=1, max_error=0, drop=0, drop_of="it is the source"
            ),
            provenance=Provenance(
                source_name=source.path.name,
                source_digest=source.digest,
                data_digest=None,
                data_origin="user" if self._request.data else "generated",
                tools=tools(),
            ),
            golden=tuple(_case(blobs, inputs, outputs) for inputs, outputs in self._golden),
            notes=(f"runs as it is, because no recipe can change it: {source.why}",),
        )

    def _report(
        self, profile: Profile, target: Target, record: VariantRecord, started: float
    ) -> VariantReport:
        name, path = record.recipe.name, self._source.path
        self._say(f"{profile.name}: measuring {name}")
        taken = latency({name: self._session}, self._calls, TIMED_SECONDS)[name]
        size = path.stat().st_size
        row = Candidate(
            name=name,
            status="chosen",
            reason="the only candidate: the file as it is",
            size_bytes=size,
            agreement=record.agreement,
            latency_ms=taken.median_ms,
            speedup=1.0,
            peak_rss_bytes=peak_rss(path, self._calls[0], self._engine),
            engine=target.choice.name,
        )
        return VariantReport(
            profile=profile.name,
            chosen=name,
            reason=row.reason,
            candidates=(row,),
            machine=machine(),
            source_size_bytes=size,
            source_latency_ms=taken.median_ms,
            threads=1,
            decisive=target.decides(profile, detect_machine()),
            seconds=round(time.monotonic() - started, 1),
            max_drop=0.0,
            data_origin=record.provenance.data_origin,
        )


def _check_options(request: Request, source: OpaqueSource, *, on_device: bool) -> None:
    given = {
        "--recipe": request.recipe,
        "--fix": request.fixed,
        "--adapter": request.adapters,
        "--context": request.context,
        "--on": on_device,
    }
    for option, value in given.items():
        if value:
            raise InputError(
                f"{source.path.name} can only be run as it is: {source.why}",
                where=option,
                remedy="leave it out",
            )


def _case(blobs: BlobStore, inputs: Call, outputs: Call) -> GoldenCase:
    largest = 0.0
    for array in outputs.values():
        with suppress(TypeError):  # text has no size
            largest = max(largest, float(np.abs(array.astype(np.float64)).max(initial=0.0)))
    return GoldenCase(
        graph="main",
        inputs={name: store_array(blobs, array) for name, array in inputs.items()},
        outputs={name: store_array(blobs, array) for name, array in outputs.items()},
        atol=float(f"{max(TOLERANCE * largest, 1e-5):.3g}"),
        rtol=TOLERANCE,
    )
