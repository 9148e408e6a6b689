"""Runs inside the toolchain ``tensorrt-rtx``: what TensorRT's parser and builder say of a graph.

TensorRT for RTX shares parser and builder with the TensorRT of a Jetson, and builds
engines ahead of time on a machine without a GPU. It does not build for the Jetson's own
GPU (SM87); SM86 is the nearest relative, with the same kinds of kernels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tensorrt_rtx as trt

Progress = Callable[[str], None]


def check(request: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Parses a graph and builds its engine.

    Args:
        request: ``graph``, the path of an ONNX file with its external data beside it;
            ``profile``, input name -> ``min``, ``opt`` and ``max`` of its shape; ``target``,
            the GPU (``SM86``); ``workspace``, bytes that a kernel may take.
        progress: Told what happens.

    Returns:
        ``version``; ``rejected``, a list of ``index`` (of the node in the graph, -1 for an
        input), ``node``, ``op`` and ``reason``; ``seconds`` that building took; and
        ``error``, why no engine could be built, empty if one could.
    """
    log = _Log()
    builder = trt.Builder(log)
    network = _network(builder)
    parser = trt.OnnxParser(network, log)
    progress("parsing")
    answer: dict[str, Any] = {
        "version": trt.__version__,
        "rejected": [],
        "seconds": 0.0,
        "error": "",
    }
    if not parser.parse_from_file(request["graph"]):
        return answer | {"rejected": _rejected(parser, builder, request["graph"], log)}
    for tensor in _inputs(network):
        if tensor.is_shape_tensor:  # no range is known that it could be given
            return answer | {"error": f"the value of input {tensor.name!r} decides shapes"}
    progress(f"building an engine for {request['target']}")
    log.errors.clear()
    started = time.monotonic()
    engine = builder.build_serialized_network(network, _config(builder, network, request))
    answer["seconds"] = round(time.monotonic() - started, 2)
    if engine is None:
        answer["error"] = "; ".join(dict.fromkeys(log.errors)) or "no reason was given"
    return answer


class _Log(trt.ILogger):  # type: ignore[misc]
    """Keeps errors; what else TensorRT says helps nobody who cannot change it."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.errors: list[str] = []

    def log(self, severity: Any, message: str) -> None:
        if severity <= trt.ILogger.Severity.ERROR:
            self.errors.append(message)


def _network(builder: Any) -> Any:
    return builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))


def _rejected(failed: Any, builder: Any, graph: str, log: _Log) -> list[dict[str, Any]]:
    """Every node that is not accepted; a parser that failed knows the first one only."""
    network = _network(builder)  # the parser does not keep it alive
    parser = trt.OnnxParser(network, log)
    if parser.supports_model_v2(Path(graph).read_bytes(), graph):
        parser = failed
    errors = [parser.get_error(number) for number in range(parser.num_errors)]
    return [
        {"index": e.node(), "node": e.node_name(), "op": e.node_operator(), "reason": e.desc()}
        for e in errors
    ]


def _config(builder: Any, network: Any, request: Mapping[str, Any]) -> Any:
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, request["target"]), 0)
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request["workspace"])
    profile = builder.create_optimization_profile()
    for tensor in _inputs(network):
        sizes = request["profile"].get(tensor.name)
        if sizes is not None and any(size < 0 for size in tensor.shape):
            profile.set_shape(tensor.name, sizes["min"], sizes["opt"], sizes["max"])
    config.add_optimization_profile(profile)
    return config


def _inputs(network: Any) -> list[Any]:
    return [network.get_input(index) for index in range(network.num_inputs)]
