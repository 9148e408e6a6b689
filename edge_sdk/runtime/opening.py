"""``edge_sdk.load``: one variant of a bundle, admitted, verified and opened."""

from __future__ import annotations

from pathlib import Path

from edge_sdk.bundle.reader import open_bundle
from edge_sdk.runtime import memory, sessions
from edge_sdk.runtime.inputs import NanPolicy
from edge_sdk.runtime.model import Model
from edge_sdk.runtime.prepared import Verify


def load(
    path: str | Path,
    profile: str = "auto",
    memory_limit: int | str | None = None,
    *,
    context: int | None = None,
    streams: int | None = None,
    threads: int | None = None,
    verify: Verify = True,
    prepare: bool = True,
    nan: NanPolicy = "error",
) -> Model:
    """Loads one variant of a bundle.

    Args:
        path: The bundle's directory, or of a store ``STORE#name`` or ``STORE#name:version``.
        profile: Device profile of the variant; ``auto`` picks one for this machine.
        memory_limit: What the process may use: bytes, or text such as ``"256MiB"``.
            A variant or call predicted to need more is refused; a dialogue model's
            context is shortened first.
        context: Tokens of context per stream of a dialogue model, prompt and answer
            together; as many as the model and the limit allow by default.
        streams: Streams of a dialogue model that may run at once, and whose prompts stay
            cached; up to four by default, as far as the context does not suffer.
        threads: Intra-op threads; the profile's by default, at most the cores there are.
            A dialogue model may use fewer while other programs keep cores busy.
        verify: Whether to hash every file before it is used. Of a dialogue model's graph and
            weights, those that were hashed before and not touched since (by inode and change
            time) are trusted unless this is ``"always"``.
        prepare: Whether a dialogue model's weights may be packed for this CPU, once,
            into files that all its sessions share; see ``notes`` for what was done.
        nan: What to do about NaN in float inputs.

    Raises:
        BundleError: The bundle is damaged, or has no such variant.
        ProfileError: No variant suits this machine.
        MemoryLimitError: The variant is predicted not to fit; nothing was loaded.
        MissingEngineError: The variant's engine is not installed.
        EngineError: The engine refused a graph.
    """
    variant = sessions.choose_variant(open_bundle(path), profile)
    record = variant.record
    limit = None if memory_limit is None else memory.parse_size(memory_limit)
    if limit is not None:
        memory.admit(record.memory, limit, f"{record.name} ({record.profile})")
    if record.generation is not None:
        from edge_sdk.runtime.generation.opening import open_generator

        if verify:
            variant.verify(graphs=False)  # the graph as it is opened: packed weights spare raw ones
        generator = open_generator(
            variant, threads, limit, context, streams, prepare=prepare, verify=verify
        )
        return Model(record, generator, variant.blobs, nan=nan)  # the plan has seen to the limit
    if verify:
        variant.verify()
    if record.decoding is not None:
        from edge_sdk.runtime.seq2seq.opening import open_writer

        writer = open_writer(variant, threads, limit, context, streams)
        return Model(record, writer, variant.blobs, memory_limit=limit, nan=nan)
    pipeline = sessions.open_pipeline(variant, threads, arena=limit is None)
    return Model(record, pipeline, variant.blobs, memory_limit=limit, nan=nan)
