"""What a device is: TOML profiles, their typed loader, and detection of this machine.

``schema`` holds the types, ``parse`` explains wrong fields, ``loader`` finds
profiles, ``select`` picks the best one for a machine, ``machine`` reads what this machine
is, ``speed`` measures it and ``detect`` makes a profile of both.
"""

from __future__ import annotations

from device_profiles.loader import load_profile, profiles
from device_profiles.schema import Profile

__all__ = ["Profile", "load_profile", "profiles"]
