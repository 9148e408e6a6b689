"""A shadow and the service in front of it, without sockets."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from edge_sdk.shadow import algebra
from edge_sdk.shadow.document import Shadow
from edge_sdk.shadow.requests import Limits, Request
from edge_sdk.shadow.topics import Address, Operation

ADDRESS = Address("edge/things", "gw-1", "models")


@dataclass
class Cloud:
    """Applies requests one second apart and decodes the replies."""

    shadow: Shadow | None = None
    now: int = 1000
    limits: Limits = field(default_factory=Limits)
    address: Address = ADDRESS

    def ask(self, operation: Operation, body: Any = None) -> dict[str, Any]:
        """The replies to a request, by suffix; ``body`` is JSON, or bytes as they travel."""
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        if body is None:
            payload = b""
        self.now += 1
        request = Request(self.address, operation, payload)
        outcome = algebra.apply(self.shadow, request, self.now, self.limits)
        self.shadow = outcome.shadow
        suffixes = [reply.suffix for reply in outcome.replies]
        assert len(set(suffixes)) == len(suffixes)
        return {reply.suffix: json.loads(reply.payload) for reply in outcome.replies}

    def update(self, state: Any, **others: Any) -> dict[str, Any]:
        """Updates; the replies by suffix."""
        return self.ask("update", {"state": state, **others})

    def get(self) -> dict[str, Any]:
        """The document."""
        return self.ask("get")["accepted"]

    def refused(self, operation: Operation, body: Any = None) -> tuple[int, str]:
        """Code and message of a request that must be rejected and change nothing."""
        before = self.shadow
        replies = self.ask(operation, body)
        assert list(replies) == ["rejected"]
        assert self.shadow is before
        assert replies["rejected"]["timestamp"] == self.now
        return replies["rejected"]["code"], replies["rejected"]["message"]
