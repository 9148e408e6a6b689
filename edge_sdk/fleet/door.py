"""Who may change something at a fleet's server.

With a token, those who show it. Without one, those who call the server by its address, so
that no page in a browser can have its own name stand for it (DNS rebinding).
"""

from __future__ import annotations

import base64
import binascii
import hmac
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.requests import Request

from edge_sdk.errors import ConfigError


@dataclass(frozen=True)
class Refusal:
    """Why somebody may not come in."""

    error: ConfigError
    status: HTTPStatus


@dataclass(frozen=True)
class Door:
    """Lets in, or does not.

    Attributes:
        token: What every request must show; ``None`` lets everyone in.
        public: ``host:port`` by which the server is reached, beside its addresses.
    """

    token: str | None = None
    public: str | None = None

    def refuse(self, request: Request) -> Refusal | None:
        """Why a request is not answered; ``None`` where it is."""
        shown = _shown(request.headers.get("authorization", ""))
        if self.token is not None and not hmac.compare_digest(shown.encode(), self.token.encode()):
            error = ConfigError(
                "this server asks for a token" if not shown else "the token is not this server's",
                remedy="give --token, or set EDGE_SDK_TOKEN",
            )
            return Refusal(error, HTTPStatus.UNAUTHORIZED)
        if self.token is None and not self._is_meant(request.url.hostname or ""):
            error = ConfigError(
                f"a server without a token is not reached as {request.url.hostname!r}",
                remedy="use its address, set http.public to this name, or set http.token",
            )
            return Refusal(error, HTTPStatus.FORBIDDEN)
        return None

    def _is_meant(self, host: str) -> bool:
        """Whether nobody else can have made this name stand for this server.

        Names without a dot are those of the local network.
        """
        public = self.public
        if public and host == urlsplit(f"//{public.rpartition('//')[2]}").hostname:
            return True
        try:
            ip_address(host)
        except ValueError:
            return "." not in host
        return True


def _shown(authorization: str) -> str:
    """The token that a header shows: as such, or as the password of whomever."""
    kind, _, value = authorization.partition(" ")
    if kind.lower() == "bearer":
        return value
    if kind.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return ""
