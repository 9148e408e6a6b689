"""Programs that need environments of their own: isolated, pinned, built on first use.

Exporters have pins that clash with each other and with the user's. Each is a *toolchain*::

    spec.py          what a toolchain is: a description, and nothing that happens
    builtin.py       the ones that come with us; others are entry points (registry.py)
    interpreters.py  the Python that it is built on
    environment.py   its virtual environment in the user's cache: built, used, removed
    pip.py           packages into an environment
    process.py       starting programs in it, so that none outlives its caller
    runner.py        runs inside the environment: the other end of process.py
    scripts/         the built-in toolchains' own programs; they run inside too

``find("hugging-face").call("export", {...}, progress)`` is all that a caller needs.
"""

from __future__ import annotations

from converters.toolchains.environment import Environment
from converters.toolchains.registry import find, registered
from converters.toolchains.spec import Pythons, Toolchain

__all__ = ["Environment", "Pythons", "Toolchain", "find", "registered"]
