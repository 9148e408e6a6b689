"""Writes the JSON Schema of everything edge-sdk prints or reads, from the typed structs.

    python docs/reference/generate.py

A test fails when the files here and the structs differ.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import msgspec

from device_profiles.schema import Profile
from edge_sdk.bundle.record import Recipe

HERE = Path(__file__).parent
# Modules whose structs with a ``schema`` field are printed by --json or stored in bundles.
MODULES = (
    "converters.fit_report",
    "converters.report.model",
    "edge_sdk.bundle.measurements",
    "edge_sdk.bundle.record",
    "edge_sdk.cli.demo",
    "edge_sdk.cli.inspect",
    "edge_sdk.cli.profiles",
    "edge_sdk.cli.pull",
    "edge_sdk.cli.push",
    "edge_sdk.cli.run",
    "edge_sdk.cli.store",
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


def main() -> None:
    """Writes all files; those of structs that are gone are removed."""
    schemas = {f"{stem}.json": render(struct) for stem, struct in documents().items()}
    for old in HERE.glob("*.json"):
        old.unlink()
    for name, schema in schemas.items():
        (HERE / name).write_bytes(schema)


if __name__ == "__main__":
    main()
