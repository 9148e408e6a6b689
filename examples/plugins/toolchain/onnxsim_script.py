"""Runs inside the toolchain: each public function is a tool."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def simplify(request: dict[str, Any], progress: Callable[[str], None]) -> dict[str, Any]:
    """Simplifies the graph ``model`` into the file ``out``; says how many nodes are left."""
    import onnx
    import onnxsim

    progress("simplifying")
    model, checked = onnxsim.simplify(request["model"])
    onnx.save(model, request["out"])
    return {"nodes": len(model.graph.node), "checked": checked}
