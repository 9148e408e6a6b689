"""The main job: one source in, one verified bundle out.

``source -> plan -> passes -> candidates -> compare -> choose -> variants -> bundle``;
each step is a function or class of its own, this module only hands values on.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from converters.decoder.job import DecoderJob
from converters.decoder.source import DecoderSource, limited
from converters.job import Job, Say
from converters.metrics import Metric, find_metric
from converters.on_device import DeviceMeasurer
from converters.opaque.job import OpaqueJob
from converters.opaque.source import OpaqueSource
from converters.recipes import load_recipe
from converters.report import Report, VariantSummary, render_html
from converters.request import Request
from converters.sampling import dataset_for
from converters.seq2seq.job import Seq2SeqJob
from converters.seq2seq.source import Seq2SeqSource
from converters.source import AnySource, open_source
from converters.target import onnx_engine, targets
from device_profiles.loader import load_profile
from device_profiles.schema import Profile
from edge_sdk.bundle import files
from edge_sdk.bundle.reader import Bundle, open_bundle
from edge_sdk.bundle.record import Recipe
from edge_sdk.bundle.writer import BundleWriter
from edge_sdk.errors import (
    ConversionError,
    EngineError,
    InputError,
    MissingEngineError,
    SourceError,
)

AnyJob = Job | DecoderJob | Seq2SeqJob | OpaqueJob


def run(
    request: Request,
    say: Say = lambda message: None,
    measurer: DeviceMeasurer | None = None,
) -> Report:
    """Converts a model and writes the bundle; nothing is written unless every profile succeeds.

    Args:
        request: What to do.
        say: Told what happens, for progress display.
        measurer: A device that measures the finalists.

    Raises:
        InputError: Source, data, profile, recipe or base are wrong.
        ConversionError: No candidate holds the limits of a profile.
    """
    started = time.monotonic()
    for library in ("onnx_ir", "onnxscript"):  # what they log, passes say in the report
        logging.getLogger(library).setLevel(logging.ERROR)
    profiles = _load_profiles(request.profiles)
    forced = load_recipe(request.recipe) if request.recipe else None
    base = open_bundle(request.base) if request.base else None
    metric = find_metric(request.metric) if request.metric else None
    say(f"reading {request.source}")
    source = open_source(request.source, states=request.states, task=request.task, say=say)
    if isinstance(source, DecoderSource | Seq2SeqSource):
        for profile in profiles:
            onnx_engine(profile)
    with (
        files.writing(Path(tempfile.gettempdir())),
        tempfile.TemporaryDirectory(prefix="edge-sdk-") as folder,
        BundleWriter(request.out, overwrite=request.overwrite) as writer,
    ):
        with _source_runs(source):
            job = _job(request, source, metric, Path(folder), say, measurer)
        summaries = _variants(job, profiles, writer, forced, base)
        result = Report(
            name=job.name,
            version=request.version,
            source=str(request.source),
            bundle=str(request.out),
            variants=tuple(summaries),
            seconds=round(time.monotonic() - started, 1),
        )
        writer.render_report(render_html(result))
        writer.finish()
    return result


def _variants(
    job: AnyJob,
    profiles: Sequence[Profile],
    writer: BundleWriter,
    forced: Recipe | None,
    base: Bundle | None,
) -> list[VariantSummary]:
    """A variant for every profile; all have their turn before it is said which have none.

    Raises:
        ConversionError: Some profiles have no variant.
    """
    made: list[VariantSummary] = []
    failed: dict[str, ConversionError] = {}
    for profile in profiles:
        try:
            made.append(job.variant(profile, writer, forced, base))
        except ConversionError as error:  # noqa: PERF203 - a profile takes seconds
            failed[profile.name] = error
    if not failed:
        return made
    first = next(iter(failed.values()))
    if len(profiles) == 1:
        raise first
    remedies = list(dict.fromkeys(e.remedy for e in failed.values() if e.remedy))
    if made:
        names = " ".join(f"-p {name}" for name in failed)
        remedies.append(f"leave out {names}: the other profiles have variants")
    raise ConversionError(
        "; ".join(_of_profile(name, error) for name, error in failed.items()),
        remedy="; or ".join(remedies),
    ) from first


def _of_profile(name: str, error: ConversionError) -> str:
    where = f"profile {name!r}"
    said = f"{error.where}: {error.message}" if error.where else error.message
    return said if said.startswith(where) else f"{where}: {said}"


def _job(
    request: Request,
    source: AnySource,
    metric: Metric | None,
    folder: Path,
    say: Say,
    measurer: DeviceMeasurer | None,
) -> AnyJob:
    if isinstance(source, OpaqueSource):
        return OpaqueJob(request, source, say, on_device=measurer is not None)
    if measurer is not None and request.recipe is not None:
        raise InputError(
            "a recipe that is forced leaves nothing to choose",
            where="--on",
            remedy="leave it out, or the recipe",
        )
    if isinstance(source, DecoderSource):
        return DecoderJob(request, limited(source, request.context), folder, say, measurer)
    if isinstance(source, Seq2SeqSource):
        return Seq2SeqJob(request, source, metric, folder, say, measurer)
    for option, value, remedy in (
        ("--adapter", request.adapters, "merge the adapter into the model before it is exported"),
        ("--context", request.context, "leave it out"),
    ):
        if value:
            raise InputError(f"{request.source} is no dialogue model", where=option, remedy=remedy)
    say(f"reading {request.data}" if request.data else "generating inputs: agreement will say less")
    data = dataset_for(source, request.data, request.fixed)
    return Job(request, source, data, metric, folder, say, measurer)


@contextmanager
def _source_runs(source: AnySource) -> Iterator[None]:
    """What an engine says here, it says of the user's own model or data."""
    try:
        yield
    except MissingEngineError:
        raise
    except EngineError as error:
        raise SourceError(
            f"the model itself does not run: {error.message}",
            where=str(source.path),
            remedy="try it with ONNX Runtime as it is, on the data given",
        ) from error


def _load_profiles(names: Sequence[str]) -> list[Profile]:
    if not names:
        raise InputError(
            "no profile given", remedy="add -p x86-64, or see `edge-sdk profiles list`"
        )
    found = [load_profile(name) for name in dict.fromkeys(names)]
    for profile in found:
        targets(profile)
    return found
