"""What the running machine is: platform, CPU features, memory, engines. Nothing is measured."""

from __future__ import annotations

import os
import platform
import struct
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import msgspec

from device_profiles import procfs
from device_profiles.isa import FEATURES
from device_profiles.schema import Platform
from edge_sdk.errors import ProfileError

_ARCHITECTURES = {
    "x86_64": Platform(os="linux", architecture="amd64"),
    "amd64": Platform(os="linux", architecture="amd64"),
    "aarch64": Platform(os="linux", architecture="arm64", variant="v8"),
    "arm64": Platform(os="linux", architecture="arm64", variant="v8"),
    "armv8l": Platform(os="linux", architecture="arm", variant="v7"),
    "armv7l": Platform(os="linux", architecture="arm", variant="v7"),
    "armv6l": Platform(os="linux", architecture="arm", variant="v6"),
}

# Engine -> its Python module, and the distributions that bring it.
_ENGINES = {
    "onnx": (("onnxruntime",), ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino")),
    "litert": (("ai_edge_litert", "tflite_runtime"), ("ai-edge-litert", "tflite-runtime")),
}


class InstalledEngine(msgspec.Struct, frozen=True, kw_only=True):
    """An inference engine found on a machine.

    ``version`` is empty where a vendor's build has no package metadata.
    """

    name: str
    version: str
    providers: tuple[str, ...] = ()


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine is.

    Attributes:
        title: The board's or CPU's own name.
        platform: Its OCI platform.
        isa: CPU features common to all cores, by Linux's names; those that matter to inference.
        cores: Cores this process may use.
        memory_mib: Memory this process may use.
        engines: Inference engines installed here.
    """

    title: str
    platform: Platform
    isa: frozenset[str]
    cores: int
    memory_mib: int
    engines: tuple[InstalledEngine, ...] = ()


def detect_machine(*, engines: bool = True) -> Machine:
    """The machine this process runs on.

    Args:
        engines: Whether to look for inference engines, which means to import them.

    Raises:
        ProfileError: It does not run Linux, or on an unsupported architecture.
    """
    if platform.system() != "Linux":
        raise ProfileError(
            f"only Linux machines can be detected, this one runs {platform.system()}",
            remedy="name a profile yourself",
        )
    return read_machine(
        Path("/"),
        uname=platform.machine(),
        pointer_bits=struct.calcsize("P") * 8,
        cpus=len(os.sched_getaffinity(0)),
        engines=tuple(installed_engines()) if engines else (),
    )


def read_machine(
    root: Path,
    *,
    uname: str,
    pointer_bits: int,
    cpus: int,
    engines: tuple[InstalledEngine, ...],
) -> Machine:
    """A machine from the kernel's files below ``root``.

    Args:
        root: Holds ``proc`` and ``sys``.
        uname: The machine's name as ``uname -m`` gives it.
        pointer_bits: Of this process: it is 32 where a 32-bit system runs on a 64-bit kernel.
        cpus: Size of this process's CPU affinity mask.
        engines: Inference engines installed there.

    Raises:
        ProfileError: No profile can describe this architecture.
    """
    here = oci_platform(uname, pointer_bits)
    quota = procfs.cpu_quota(root)
    cores = min(procfs.cpu_count(root), cpus)
    return Machine(
        title=procfs.machine_title(root) or f"{uname} machine",
        platform=here,
        isa=procfs.cpu_features(root) & frozenset(FEATURES[here.architecture]),
        cores=cores if quota is None else max(1, min(cores, int(quota))),
        memory_mib=procfs.memory_mib(root),
        engines=engines,
    )


def oci_platform(uname: str, pointer_bits: int = 64) -> Platform:
    """The OCI platform for a machine name as ``uname -m`` gives it.

    Raises:
        ProfileError: No profile can describe this architecture.
    """
    found = _ARCHITECTURES.get(uname.lower())
    if found is None:
        raise ProfileError(
            f"machines of type {uname!r} are not supported",
            remedy=f"supported are {', '.join(_ARCHITECTURES)}",
        )
    return _ARCHITECTURES["armv7l"] if uname == "aarch64" and pointer_bits == 32 else found


def installed_engines() -> Iterator[InstalledEngine]:
    """The inference engines installed for this Python; onnxruntime is imported for its providers.

    A library that is there but does not load (a vendor build without its CUDA) does not count.
    A plug-in's engine speaks for itself.
    """
    from importlib.metadata import entry_points

    for name, (modules, distributions) in _ENGINES.items():
        if not any(find_spec(module) for module in modules):
            continue
        providers: tuple[str, ...] = ()
        if name == "onnx":
            try:
                import onnxruntime
            except (ImportError, OSError):
                continue
            providers = tuple(onnxruntime.get_available_providers())
        yield InstalledEngine(name=name, version=_version(distributions), providers=providers)
    for entry in entry_points(group="edge_sdk.engines"):
        if entry.name not in _ENGINES:
            with suppress(ImportError, AttributeError, OSError):
                found = entry.load()().version()
                if found is not None:
                    yield InstalledEngine(name=entry.name, version=found)


def _version(distributions: tuple[str, ...]) -> str:
    from importlib.metadata import PackageNotFoundError, version

    for name in distributions:
        with suppress(PackageNotFoundError):
            return f"{name} {version(name)}"
    return ""
