"""edge-sdk: run verified model bundles on edge devices.

``import edge_sdk`` loads no engine, no numpy and no network library; the first
use of a name below does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_sdk.runtime.model import Model
    from edge_sdk.runtime.opening import load

__version__ = "0.1.0"
__all__ = ["Model", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from edge_sdk.runtime.opening import load

        return load
    if name == "Model":
        from edge_sdk.runtime.model import Model

        return Model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
