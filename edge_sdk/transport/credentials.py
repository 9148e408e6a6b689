"""Who we are to a registry: given by the caller, the environment, or ``docker login``."""

from __future__ import annotations

import base64
import binascii
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from edge_sdk.errors import ConfigError

USER, PASSWORD = "EDGE_SDK_REGISTRY_USER", "EDGE_SDK_REGISTRY_PASSWORD"


@dataclass(frozen=True)
class Credentials:
    """A user and a password, or a token that a registry takes for one."""

    user: str
    password: str = field(repr=False)

    @property
    def basic(self) -> str:
        """The value of an ``Authorization`` header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


FindCredentials = Callable[[str], "Credentials | None"]
"""Registry (``host[:port]``) -> what to say to it; ``None`` to come without a name."""


class _Auth(msgspec.Struct):
    auth: str = ""
    username: str = ""
    password: str = ""


class _DockerConfig(msgspec.Struct):
    auths: dict[str, _Auth] = {}
    creds_store: str = msgspec.field(default="", name="credsStore")
    cred_helpers: dict[str, str] = msgspec.field(default_factory=dict, name="credHelpers")


class _Helped(msgspec.Struct, rename="pascal"):
    username: str
    secret: str


def find_credentials(
    registry: str, environment: Mapping[str, str] = os.environ
) -> Credentials | None:
    """Looks for credentials where people keep them.

    In this order: ``EDGE_SDK_REGISTRY_USER`` and ``EDGE_SDK_REGISTRY_PASSWORD``, whichever the
    registry is; those of :func:`docker_credentials`.

    Args:
        registry: ``host[:port]``.
        environment: The environment's variables.

    Raises:
        ConfigError: Docker's file is there but cannot be read, or its helper fails.
    """
    if USER in environment:
        return Credentials(environment[USER], environment.get(PASSWORD, ""))
    return docker_credentials(registry, environment)


def docker_credentials(
    registry: str, environment: Mapping[str, str] = os.environ
) -> Credentials | None:
    """Those that ``docker login`` has kept for one registry.

    They are in ``config.json`` in ``$DOCKER_CONFIG`` or ``~/.docker``, or a helper program
    that it names knows them (``credHelpers``, ``credsStore``).

    Args:
        registry: ``host[:port]``.
        environment: The environment's variables.

    Raises:
        ConfigError: Docker's file is there but cannot be read, or its helper fails.
    """
    home = Path(environment.get("HOME", "/nonexistent"))  # services often have none
    file = Path(environment.get("DOCKER_CONFIG") or home / ".docker") / "config.json"
    try:
        config = msgspec.json.decode(file.read_bytes(), type=_DockerConfig)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(file)) from error
    for key in (registry, f"https://{registry}", f"http://{registry}"):
        if key in config.auths and (found := _credentials(config.auths[key], f"{file}: {key}")):
            return found
    helper = config.cred_helpers.get(registry, config.creds_store)
    return _ask(f"docker-credential-{helper}", registry, environment) if helper else None


def _ask(program: str, registry: str, environment: Mapping[str, str]) -> Credentials | None:
    """What a helper knows, by the protocol of docker-credential-helpers."""
    try:
        done = subprocess.run(
            [program, "get"], input=registry.encode(), capture_output=True, env=dict(environment)
        )
        if done.returncode:
            if b"credentials not found" in done.stdout:
                return None
            raise ConfigError(
                f"does not tell the credentials for {registry}: "
                f"{(done.stdout + done.stderr).decode(errors='replace').strip()}",
                where=program,
            )
        found = msgspec.json.decode(done.stdout, type=_Helped)
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(f"cannot be asked: {error}", where=program) from error
    if found.username == "<token>":
        raise ConfigError(
            "holds an identity token, which is not supported",
            where=program,
            remedy=f"set {USER} and {PASSWORD}",
        )
    return Credentials(found.username, found.secret)


def _credentials(auth: _Auth, where: str) -> Credentials | None:
    if not auth.auth:
        return Credentials(auth.username, auth.password) if auth.username else None
    try:
        user, colon, password = base64.b64decode(auth.auth, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"auth is not base64 of user:password: {error}", where=where) from error
    if not colon:
        raise ConfigError("auth is not base64 of user:password", where=where)
    return Credentials(user, password)
