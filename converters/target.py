"""Which of a profile's engines a variant is made for."""

from __future__ import annotations

from device_profiles.schema import EngineChoice, Profile
from edge_sdk.errors import ConversionError, MissingEngineError
from edge_sdk.runtime.engine import find_engine

# What this version writes.
FORMAT = "onnx"


def target_engine(profile: Profile) -> EngineChoice:
    """The profile's first engine that is registered here and reads what we write.

    Raises:
        ConversionError: It has none.
    """
    for choice in profile.engines:
        try:
            formats = find_engine(choice.name).formats
        except MissingEngineError:
            continue
        if FORMAT in formats:
            return choice
    raise ConversionError(
        f"none of its engines is registered here and reads {FORMAT!r}: "
        + ", ".join(choice.name for choice in profile.engines),
        where=f"profile {profile.name!r}",
        remedy="leave this profile out, or install the package of its engine",
    )
