"""Weights as an engine wants them: derived on this device, disposable, shared by all sessions.

::

    open_graph ── find (layout id, index) ── open over packed files ── golden check ── session
        │              │ absent                                            │ differs
        │              └─ prepare, weight by weight                        └─ removed
        └─ anything against it: the graph opened plainly, with a note

What lives here: opaque engine files joined from their blobs (:mod:`joined`); the packed
weights of decoders on ONNX Runtime (the rest). What a graph computes does not depend
on any of it.
"""

from __future__ import annotations

from edge_sdk.runtime.prepared.joined import graph_file
from edge_sdk.runtime.prepared.opening import open_graph
from edge_sdk.runtime.prepared.prepare import Progress
from edge_sdk.runtime.prepared.stamps import Verify

__all__ = ["Progress", "Verify", "graph_file", "open_graph"]
