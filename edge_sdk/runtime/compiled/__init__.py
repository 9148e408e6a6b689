"""Graphs compiled on the device: in a process apart, while a plain session serves.

::

    open_graph ── find (index) ── open, self-test ── session
        │             │ absent            │ fails: removed, and not tried again
        │             └─ a plain session serves, and in the background
        │                child.py: compile ── open ── self-test ── index ── the session changes
        └─ nothing to compile here: the engine opens the graph as ever

    place.py     where a result is, what it depends on, and what became of attempts
    request.py   what is asked of the process that compiles
    child.py     that process; what kills it kills nobody else
    session.py   the session that changes from one to the other

It is written for TensorRT (:mod:`edge_sdk.runtime.engines.tensorrt`), which takes minutes
for an engine, and serves every :class:`~edge_sdk.runtime.engine.CompilingEngine`.
"""

from __future__ import annotations

from edge_sdk.runtime.compiled.opening import open_graph
from edge_sdk.runtime.compiled.session import SwitchingSession

__all__ = ["SwitchingSession", "open_graph"]
