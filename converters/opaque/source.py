"""A model as a file that only its own engine understands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from device_profiles.schema import Kind
from edge_sdk.bundle.record import TensorSpec


@dataclass(frozen=True)
class OpaqueSource:
    """A file, and what is known about it.

    Attributes:
        path: The file.
        name: Default name of the bundle.
        digest: ``sha256:…`` of the file.
        format: What engines call its format.
        why: Why there is no graph of it.
        kind: Kind of network.
        task: What it does.
        inputs: Inputs in order.
        outputs: Outputs in order.
    """

    path: Path
    name: str
    digest: str
    format: str
    why: str
    kind: Kind
    task: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
