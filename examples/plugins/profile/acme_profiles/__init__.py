"""Profiles of Acme's devices: every .toml file beside this one."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
