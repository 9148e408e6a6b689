"""Writes what edge-sdk prints and reads, from the typed structs: JSON Schemas, and TOML files.

    python docs/reference/generate.py

A test fails when the files here and the structs differ.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import msgspec
from annotated import annotated

from device_profiles.schema import Profile
from edge_sdk.agent.config import AgentConfig
from edge_sdk.bundle.record import Recipe
from edge_sdk.fleet.config import FleetConfig

HERE = Path(__file__).parent
# Configuration files that are written out with every key.
CONFIGURATIONS: dict[str, type[msgspec.Struct]] = {"agent": AgentConfig, "fleet": FleetConfig}
# Modules whose structs with a ``schema`` field are printed by --json or stored in bundles.
MODULES = (
    "converters.comparison.model",
    "converters.fit_report",
    "converters.report.model",
    "edge_sdk.bundle.measurements",
    "edge_sdk.bundle.record",
    "edge_sdk.cli.agent",
    "edge_sdk.cli.demo.result",
    "edge_sdk.cli.inspect",
    "edge_sdk.cli.profiles",
    "edge_sdk.cli.pull",
    "edge_sdk.cli.push",
    "edge_sdk.cli.run",
    "edge_sdk.cli.store",
    "edge_sdk.cli.toolchain",
    "edge_sdk.fleet.serve",
    "edge_sdk.fleet.views",
    "edge_sdk.runtime.bench",
)


def documents() -> dict[str, type[msgspec.Struct]]:
    """File stem -> struct: documents by their schema's name, configuration files by their own."""
    found: dict[str, type[msgspec.Struct]] = {"device-profile": Profile, "recipe": Recipe}
    for module in MODULES:
        for value in vars(import_module(module)).values():
            if isinstance(value, type) and issubclass(value, msgspec.Struct):
                for field in msgspec.structs.fields(value):
                    if field.name == "schema" and isinstance(field.default, str):
                        stem = field.default.removeprefix("org.edge-sdk.").replace("/", "-")
                        found[stem] = value
    return found


def render(struct: type[msgspec.Struct]) -> bytes:
    """The JSON Schema of one struct, as the file holds it."""
    schema = msgspec.json.schema(struct)
    return msgspec.json.format(msgspec.json.encode(schema, order="deterministic"), indent=2) + b"\n"


def files() -> dict[str, bytes]:
    """All files of the folder that are generated."""
    schemas = {f"{stem}.json": render(struct) for stem, struct in documents().items()}
    tables = {f"{stem}.toml": annotated(s).encode() for stem, s in CONFIGURATIONS.items()}
    return schemas | tables


def main() -> None:
    """Writes all files; those of structs that are gone are removed."""
    generated = files()
    for old in (*HERE.glob("*.json"), *HERE.glob("*.toml")):
        old.unlink()
    for name, content in generated.items():
        (HERE / name).write_bytes(content)


if __name__ == "__main__":
    main()
