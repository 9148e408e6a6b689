"""What the fleet knows of one device."""

from __future__ import annotations

import msgspec

from edge_sdk.shadow.models import DesiredModel, ReportedAgent, ReportedModel


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """One device, as its presence and its shadow ``models`` show it.

    Attributes:
        thing: Its name.
        online: Whether it is reached now.
        last_seen: When it was last heard of, in seconds since 1970; ``None`` for never.
        assigned: Labels given to it on the server.
        agent: What its agent says of itself.
        desired: What it should run, by name of the model.
        models: What it reports, by name of the model.
    """

    thing: str
    online: bool = False
    last_seen: float | None = None
    assigned: dict[str, str] = {}
    agent: ReportedAgent = ReportedAgent()
    desired: dict[str, DesiredModel] = {}
    models: dict[str, ReportedModel] = {}

    @property
    def labels(self) -> dict[str, str]:
        """Its labels; those given on the server replace the ones of its own configuration."""
        return {**self.agent.labels, **self.assigned}

    @property
    def profile(self) -> str:
        """The device profile that its agent chooses variants for."""
        return self.agent.profile
