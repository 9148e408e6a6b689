"""Finding toolchains: entry points of the group ``edge_sdk.toolchains``, ours like others'."""

from __future__ import annotations

from importlib.metadata import entry_points

from converters.toolchains.environment import Environment
from converters.toolchains.spec import Toolchain
from edge_sdk.errors import InputError, ToolchainError
from edge_sdk.plugins import load_plugin
from edge_sdk.toml_files import suggest

GROUP = "edge_sdk.toolchains"


def registered() -> tuple[Toolchain, ...]:
    """All toolchains that are known here, by name."""
    entries = sorted(entry_points(group=GROUP), key=lambda entry: entry.name)
    return tuple(load_plugin(entry, ToolchainError) for entry in entries)


def find(name: str) -> Environment:
    """The environment of a toolchain, built or not.

    Raises:
        InputError: There is no such toolchain.
    """
    names = [entry.name for entry in entry_points(group=GROUP)]
    if name not in names:
        raise InputError(
            f"unknown toolchain{suggest(name, names)}",
            where=name,
            remedy=f"known: {', '.join(sorted(names))}",
        )
    (entry,) = entry_points(group=GROUP, name=name)
    return Environment(load_plugin(entry, ToolchainError))
