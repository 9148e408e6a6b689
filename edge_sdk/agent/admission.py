"""The one place that decides whether a bundle may be installed on this device. Pure.

It is asked twice: before anything is fetched, with what the cloud claims, and before anything
is loaded, with what the bundle's own records say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_sdk.agent.journal import Release
from edge_sdk.bundle.versions import is_older
from edge_sdk.errors import AdmissionError


@dataclass(frozen=True)
class Candidate:
    """A bundle that is to be installed.

    Attributes:
        model: The model it is for.
        digest: Of its image index, as it is or as it is claimed.
        version: Its version, as it is or as it is claimed.
        name: What the bundle calls its model; ``None`` before that is known.
    """

    model: str
    digest: str
    version: str
    name: str | None = None


@dataclass(frozen=True)
class Rules:
    """What a candidate must satisfy.

    Attributes:
        digest: The digest that the cloud asked for.
        version: The version that the cloud asked for.
        allow_older: Whether it may be older than what runs.
        running: What serves for the model now.
        kept: (Name, version) -> digest of the installed bundles that are still needed.
    """

    digest: str
    version: str
    allow_older: bool = False
    running: Release | None = None
    kept: Mapping[tuple[str, str], str] = field(default_factory=dict)


def admit(candidate: Candidate, rules: Rules) -> None:
    """Refuses a bundle that is not what was asked for, or that would be a step back.

    Raises:
        AdmissionError: It may not be installed; the message says why.
    """
    where = f"{candidate.model} {candidate.version}"
    if candidate.digest != rules.digest:
        raise AdmissionError(f"is {candidate.digest} instead of {rules.digest}", where=where)
    if candidate.version != rules.version:
        raise AdmissionError(
            f"the bundle calls itself {candidate.version}, version {rules.version} was asked for",
            where=where,
            remedy="deploy it again by its reference: the version is then read from the bundle",
        )
    running = rules.running
    if running and is_older(candidate.version, running.version) and not rules.allow_older:
        raise AdmissionError(
            f"is older than {running.version}, which runs here",
            where=where,
            remedy="deploy it with --allow-older if that is meant",
        )
    name = candidate.name
    if name and rules.kept.get((name, candidate.version), candidate.digest) != candidate.digest:
        raise AdmissionError(
            f"another bundle that is {name} {candidate.version} is in use here",
            where=where,
            remedy="give what has changed a version of its own",
        )
