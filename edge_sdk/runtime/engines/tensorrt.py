"""TensorRT behind ONNX Runtime: what is compiled, with which options, for which device.

An engine is built when a session opens, in minutes on a small board, and is good for one
GPU and one version of TensorRT. ONNX Runtime can leave it behind as an *EP-context model*,
a small graph whose only node names the engine's file; opening that needs neither the
weights nor the parser. Names of options are those of ONNX Runtime's TensorRT provider.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from edge_sdk.runtime.engine import Compilation, SessionOptions

PROVIDER = "TensorrtExecutionProvider"
BUDGET_S = 1800.0
"""Building takes seconds to some minutes on an Orin; what takes longer than this hangs."""
_LIBRARIES = ("libnvinfer.so.10", "libnvinfer.so.8", "libnvinfer.so")
_CONTEXT = "*_ctx.onnx"
_MAJOR, _MINOR = 75, 76  # CUdevice_attribute: compute capability


def compilation(options: SessionOptions, onnxruntime: str) -> Compilation | None:
    """What is to be compiled for a session that TensorRT is to run, if it is here.

    Args:
        options: The session's.
        onnxruntime: Version of ONNX Runtime.
    """
    tensorrt, gpu = library_version(), device()
    if tensorrt is None or gpu is None:
        return None
    others = tuple(name for name in options.providers if name != PROVIDER)
    return Compilation(
        identity={"onnxruntime": onnxruntime, "tensorrt": tensorrt, "device": gpu},
        meanwhile=replace(options, providers=others, options=without(options.options)),
        budget_s=BUDGET_S,
    )


def without(options: Mapping[str, str]) -> dict[str, str]:
    """Engine options without TensorRT's."""
    return {key: v for key, v in options.items() if not key.startswith(f"{PROVIDER}.")}


def building(options: SessionOptions, folder: Path) -> SessionOptions:
    """Options of the session that builds an engine and leaves it in ``folder``."""
    return _with(
        options,
        trt_engine_cache_enable="1",
        trt_dump_ep_context_model="1",
        trt_ep_context_file_path=str(folder),
        trt_ep_context_embed_mode="0",
        trt_timing_cache_path=str(folder),
    )


def built(graph: Path, options: SessionOptions, folder: Path) -> tuple[Path, SessionOptions]:
    """The graph to open, and options, so that the engine in ``folder`` is used."""
    context = next(iter(sorted(folder.glob(_CONTEXT))), None)
    plain = _with(options, trt_dump_ep_context_model="0", trt_timing_cache_path=str(folder))
    if context is None:  # a graph of which TensorRT took a part only: its engines are cached
        return graph, _with(plain, trt_engine_cache_path=str(folder))
    return context, plain


def is_built(folder: Path) -> bool:
    """Whether TensorRT left an engine there."""
    return any(folder.glob("*.engine"))


@lru_cache
def library_version() -> str | None:
    """Version of TensorRT's library, ``None`` where it is absent."""
    for name in _LIBRARIES:
        with suppress(OSError, AttributeError):
            return str(ctypes.CDLL(name).getInferLibVersion())
    return None


@lru_cache
def device() -> str | None:
    """The first GPU, its compute capability and the driver; ``None`` where there is none."""
    with suppress(OSError, AttributeError):
        cuda = ctypes.CDLL("libcuda.so.1")
        driver, gpu, number = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        name = ctypes.create_string_buffer(100)
        steps = [
            cuda.cuInit(0),
            cuda.cuDriverGetVersion(ctypes.byref(driver)),
            cuda.cuDeviceGet(ctypes.byref(gpu), 0),
            cuda.cuDeviceGetName(name, len(name), gpu),
        ]
        found = []
        for attribute in (_MAJOR, _MINOR):
            steps.append(cuda.cuDeviceGetAttribute(ctypes.byref(number), attribute, gpu))
            found.append(number.value)
        if not any(steps):
            capability = ".".join(map(str, found))
            return f"{name.value.decode()}, compute {capability}, driver {driver.value}"
    return None


def _with(options: SessionOptions, **given: str) -> SessionOptions:
    more = {f"{PROVIDER}.{key}": value for key, value in given.items()}
    return replace(options, options={**options.options, **more})
