"""What a device is: TOML profiles, their typed loader, and detection of this machine."""

from __future__ import annotations

from device_profiles.schema import Profile

__all__ = ["Profile"]
