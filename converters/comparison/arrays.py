"""Compares models from arrays to arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from converters import compare as outputs_of
from converters.comparison.model import Row
from converters.comparison.subject import Subject
from converters.data import content_digest, load_data
from converters.dataset import Dataset, zero_states
from converters.generate import generate
from converters.materialize import open_path
from converters.media import media_files
from converters.metrics import Metric
from converters.output_pairs import SampleOutputs
from edge_sdk.bundle.record import Agreement
from edge_sdk.errors import InputError
from edge_sdk.runtime.bench import (
    Call,
    Throughput,
    Timed,
    fresh_start,
    golden_calls,
    in_turns,
)
from edge_sdk.runtime.engine import Session
from edge_sdk.runtime.opening import load
from edge_sdk.runtime.steps import parse_steps

TIMED_CALLS = 4
EVALUATED = 1000

Result: TypeAlias = tuple[tuple[Row, ...], int, tuple[str, ...]]


def compare(
    subjects: Sequence[Subject],
    data: Path | None,
    metric: Metric | None,
    threads: Sequence[int],
    seconds: float,
    say: Callable[[str], None],
) -> Result:
    """Compares models on the same arrays.

    Args:
        subjects: The models, the baseline first.
        data: Where the data lie; generated for the baseline where ``None``.
        metric: Task metric; needs labels.
        threads: Numbers of threads; latency is of the first.
        seconds: Time per model for latency, and again for throughput.
        say: Told what happens.

    Returns:
        The rows, the number of samples, and notes.

    Raises:
        InputError: Inputs or outputs of the models do not correspond.
        DataError: The data does not fit.
    """
    datasets = _datasets(subjects, data)
    agreements = _agreements(subjects, datasets, metric, say)
    calls = [_calls(s, dataset) for s, dataset in zip(subjects, datasets, strict=True)]
    runs = {n: _timed(subjects, calls, n, seconds, say) for n in dict.fromkeys(threads)}
    timed = runs[threads[0]]
    rows = []
    for index, subject in enumerate(subjects):
        say(f"starting {subject.given} in a fresh process")
        agreement = agreements[index]
        rows.append(
            Row(
                given=subject.given,
                what=subject.what,
                engine=subject.engine,
                precision=subject.precision,
                size_bytes=subject.size_bytes,
                metrics={name: own for name, (_, own) in agreement.metrics.items()},
                agreement=agreement,
                latency=timed[index].latency(),
                speedup=timed[index].speedup(timed[0]),
                throughput=tuple(
                    Throughput(threads=n, calls_per_second=runs[n][index].rate())
                    for n in sorted(runs)
                ),
                start=fresh_start(subject.target, calls[index][0], threads[0]),
            )
        )
    generated = "inputs were generated: agreement says less than on real data"
    notes = [] if data else [generated]
    # Where what is compared differs in kind, the figure itself says nothing.
    notes += [
        f"{row.given}: {row.agreement.drop_of}"
        for row in rows
        if row.agreement and row.agreement.drop_of.startswith("output ")
    ]
    return tuple(rows), len(datasets[0]), tuple(notes)


def _agreements(
    subjects: Sequence[Subject],
    datasets: Sequence[Dataset],
    metric: Metric | None,
    say: Callable[[str], None],
) -> list[Agreement]:
    """How well each model's outputs agree with the first one's."""
    first, reference = subjects[0], list[SampleOutputs]()
    found = []
    for subject, dataset in zip(subjects, datasets, strict=True):
        say(f"running {subject.given} on {len(dataset)} samples")
        outputs = outputs_of.run(_session(subject), dataset, subject.states)
        named = _renamed(outputs, subject, first)
        reference = reference or named
        labels = datasets[0].labels
        found.append(
            outputs_of.agreement(reference, named, labels=labels, metric=metric, task=first.task)
        )
    return found


def _session(subject: Subject) -> Session:
    target = subject.target
    if target.profile is None:
        return open_path(target.path, engine=subject.engine)
    return load(target.path, target.profile, nan="allow")


def _datasets(subjects: Sequence[Subject], data: Path | None) -> list[Dataset]:
    """Each model's samples: the same ones, by its own tokenizer and under its own names."""
    first = subjects[0]
    if data is not None and (data.suffix == ".jsonl" or media_files(data)):
        return [_read(data, subject) for subject in subjects]
    shared = _read(data, first) if data else _generated(first)
    return [_with_names(shared, _pairs(first, subject)) for subject in subjects]


def _read(data: Path, subject: Subject) -> Dataset:
    made = subject.variant.record if subject.variant else subject.source
    steps = parse_steps(made.preprocess) if made else ()
    found = load_data(
        data,
        subject.inputs,
        subject.states,
        subject.tokenizer,
        subject.labels or None,
        steps=steps,
    )
    return found.take(range(min(len(found), EVALUATED)))


def _generated(subject: Subject) -> Dataset:
    """Inputs made up for a file; of a bundle, its golden ones."""
    if subject.source is not None:
        source = subject.source
        return generate(source.model, open_path(source.path), source.states)
    if subject.variant is None:
        raise InputError(
            "inputs are made up for graphs, and this file has none that is understood",
            where=subject.given,
            remedy="give --data, or name another model first",
        )
    calls = golden_calls(subject.variant)
    samples = tuple((call,) for call in calls)
    return Dataset(samples, None, "generated", content_digest(samples, None))


def _pairs(first: Subject, other: Subject) -> dict[str, str]:
    """The baseline's input -> the other model's: by name, else by place."""
    mine, its = ([spec.name for spec in s.needed] for s in (first, other))
    if set(mine) == set(its):
        return {spec.name: spec.name for spec in first.inputs}
    if [spec.dtype for spec in first.needed] != [spec.dtype for spec in other.needed]:
        raise InputError(
            f"its inputs ({', '.join(its)}) do not correspond to the baseline's "
            f"({', '.join(mine)})",
            where=other.given,
            remedy="compare models that take the same inputs",
        )
    return dict(zip(mine, its, strict=True))


def _with_names(dataset: Dataset, names: Mapping[str, str]) -> Dataset:
    samples = tuple(
        tuple({names.get(name, name): array for name, array in call.items()} for call in sample)
        for sample in dataset.samples
    )
    return replace(dataset, samples=samples)


def _renamed(found: list[SampleOutputs], subject: Subject, first: Subject) -> list[SampleOutputs]:
    """A model's outputs under the baseline's names: by name, else by place."""
    wanted, given = ([spec.name for spec in s.outputs] for s in (first, subject))
    if set(wanted) <= set(given):
        return found
    if len(wanted) != len(given):
        raise InputError(
            f"its outputs ({', '.join(given)}) do not correspond to the baseline's "
            f"({', '.join(wanted)})",
            where=subject.given,
            remedy="compare models that give the same outputs",
        )
    names = dict(zip(given, wanted, strict=True))
    return [tuple({names[n]: a for n, a in call.items()} for call in sample) for sample in found]


def _calls(subject: Subject, dataset: Dataset) -> list[Call]:
    """First calls of a few samples, states at zero."""
    zeros = zero_states(_session(subject).inputs, subject.states) if subject.states else {}
    return [{**zeros, **sample[0]} for sample in dataset.samples[:TIMED_CALLS]]


def _timed(
    subjects: Sequence[Subject],
    calls: Sequence[Sequence[Call]],
    threads: int,
    seconds: float,
    say: Callable[[str], None],
) -> Sequence[Timed]:
    say(f"timing {len(subjects)} models in turn on {threads} thread{'s' if threads > 1 else ''}")
    opened = [
        Timed(subject.target.open(threads), own)
        for subject, own in zip(subjects, calls, strict=True)
    ]
    return in_turns(opened, seconds * len(subjects))
