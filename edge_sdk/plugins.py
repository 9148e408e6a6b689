"""Loading what plug-ins bring: the object an entry point names, or an error that names it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge_sdk.errors import EdgeSdkError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


def load_plugin(entry: EntryPoint, error: type[EdgeSdkError]) -> Any:
    """The object that an entry point names.

    Raises:
        EdgeSdkError: Of type ``error``: its module cannot be imported, or lacks that name.
    """
    try:
        return entry.load()
    except (ImportError, AttributeError, SyntaxError) as cause:
        raise error(
            f"cannot be imported: {cause}",
            where=f"entry point {entry.name} = {entry.value} of {entry.group}",
            remedy="repair or uninstall that plug-in",
        ) from cause
