"""From a bundle to open sessions: which variant, which engine, how many threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from edge_sdk.bundle.reader import Bundle, Variant
from edge_sdk.errors import BundleError, ProfileError
from edge_sdk.runtime import prepared
from edge_sdk.runtime.engine import Session, SessionOptions, find_engine
from edge_sdk.runtime.pipeline import Pipeline
from edge_sdk.runtime.prepared import Verify


def choose_variant(bundle: Bundle, profile: str) -> Variant:
    """The variant for a profile; ``auto`` picks the best one for this machine.

    Raises:
        BundleError: The bundle has no variant for that profile.
        ProfileError: None of its variants suits this machine.
    """
    if profile != "auto":
        return bundle.variant(profile)
    from device_profiles.select import select_here

    available = {v.profile: v.platform for v in bundle.variants if v.platform is not None}
    if not available and len(bundle.variants) == 1:
        return bundle.variants[0]  # copied out of its index, so nothing says what it is for
    return bundle.variant(select_here(available))


def open_pipeline(variant: Variant, threads: int | None, arena: bool) -> Pipeline:
    """Opens all graphs of a variant with its engine.

    Args:
        variant: A verified variant.
        threads: Intra-op threads; the profile's by default.
        arena: Whether the engine may keep a growing memory arena.

    Raises:
        MissingEngineError: The engine, or its library, is not installed.
        EngineError: The engine refused a graph.
        BundleError: The engine does not read a graph's format, or the wiring is wrong.
    """
    names = [graph.name for graph in variant.record.graphs]
    opened = {name: open_graph(variant, name, threads, arena) for name in names}
    return Pipeline(variant.record, opened)


def open_graph(
    variant: Variant,
    name: str,
    threads: int | None,
    arena: bool,
    *,
    prepare: bool = True,
    verify: Verify = False,
    progress: prepared.Progress | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> Session:
    """Opens one graph of a variant with its engine; arguments and errors as above.

    Args:
        variant: A variant; graph and weights are verified where ``verify`` is set.
        name: The graph's name.
        threads: Intra-op threads.
        arena: Whether the engine may keep a growing memory arena.
        prepare: Whether a decoder's weights may be packed for this CPU into files that
            sessions share.
        verify: Whether to hash the graph and the weights that it reads, those too whose
            stamp is known if ``always``.
        progress: Called with the number of weights packed so far, and of all.
        meanwhile: Called when the engine is about to read the graph: starts what a thread can
            do until then.

    Raises:
        BundleError: The variant has no graph of that name.
        DigestError: The graph or a weight is damaged.
    """
    record = variant.record
    graph = next((graph for graph in record.graphs if graph.name == name), None)
    if graph is None:
        raise BundleError("the variant has no such graph", where=f"graph {name!r}")
    options = SessionOptions(
        threads=threads if threads is not None else default_threads(record.profile),
        providers=record.engine.providers,
        options=record.engine.options,
        arena=arena,
    )
    engine = find_engine(record.engine.name)
    return prepared.open_graph(
        engine, graph, variant, options,
        prepare=prepare, verify=verify, progress=progress, meanwhile=meanwhile,
    )  # fmt: skip


def default_threads(profile: str) -> int:
    """The profile's threads, at most the cores this process may use."""
    from device_profiles.loader import load_profile
    from device_profiles.procfs import cpu_quota

    cores = len(os.sched_getaffinity(0))
    quota = cpu_quota(Path("/"))
    if quota is not None:  # a container's; threads beyond it would be stopped mid-run
        cores = max(1, min(cores, int(quota)))
    try:
        return min(cores, load_profile(profile).cpu.threads)
    except ProfileError:
        return cores  # a profile of the machine that converted, unknown here
