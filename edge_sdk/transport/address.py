"""Where an MQTT broker is, and how to be let in: a URL and files of certificates."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from edge_sdk.errors import ConfigError

if TYPE_CHECKING:
    import ssl

_URL = re.compile(
    r"(?P<scheme>mqtts?)://"
    r"(?:(?P<user>[^:@/]+)(?::(?P<password>[^@/]*))?@)?"
    r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<host>(?:[\w-]{1,63}\.)*[\w-]{1,63}))"
    r"(?::(?P<port>[0-9]{1,5}))?/?",
    re.ASCII,
)
_PORTS = {"mqtt": 1883, "mqtts": 8883}
_ALPN_PORT, _ALPN = 443, "x-amzn-mqtt-ca"
"""AWS IoT Core takes MQTT with client certificates on 443 for those who name this protocol."""


@dataclass(frozen=True)
class TlsFiles:
    """PEM files for TLS.

    Attributes:
        ca: Authorities that the broker's certificate may come from; the system's where none.
        certificate: Our certificate, where the broker asks for one.
        key: Its private key.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True)
class BrokerAddress:
    """An MQTT broker.

    Attributes:
        host: Name or IP address.
        port: TCP port.
        user: Name to log in with.
        password: Its password; never printed.
        tls: ``None`` where the connection is plain.
    """

    host: str
    port: int
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: TlsFiles | None = None

    @classmethod
    def parse(
        cls,
        text: str,
        *,
        ca: Path | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
    ) -> BrokerAddress:
        """Reads ``mqtt[s]://[user[:password]@]host[:port]``; ``%40`` is an ``@`` in a password.

        Args:
            text: The URL.
            ca: See :class:`TlsFiles`; needs ``mqtts``, as do the other two.
            certificate: Goes with ``key``.
            key: Goes with ``certificate``.

        Raises:
            ConfigError: It is something else, or the files do not go with it.
        """
        match = _URL.fullmatch(text)
        port = int(match["port"] or _PORTS[match["scheme"]]) if match else 0
        if not match or not 0 < port < 65536:
            raise ConfigError(
                f"{_hidden(text)!r} is no address of a broker",
                remedy="write mqtt://host:1883, or mqtts://user:password@host:8883",
            )
        files = TlsFiles(ca, certificate, key)
        secure = match["scheme"] == "mqtts"
        _check(files, secure, text)
        user, password = match["user"], match["password"]
        return cls(
            match["v6"] or match["host"],
            port,
            unquote(user) if user is not None else None,
            unquote(password) if password is not None else None,
            files if secure else None,
        )

    def ssl_context(self) -> ssl.SSLContext | None:
        """What TLS is spoken with, or ``None`` where it is not.

        Raises:
            ConfigError: A file cannot be read, or is not what it should be.
        """
        if self.tls is None:
            return None
        import ssl

        context = ssl.create_default_context()
        ca, certificate = self.tls.ca, self.tls.certificate
        if ca is not None:
            # Only these: whoever names an authority does not want the system's hundred as well.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            try:
                context.load_verify_locations(cafile=ca)
            except (OSError, ssl.SSLError) as error:
                raise _unreadable(ca, "certificates", error) from error
        if certificate is not None:
            try:
                context.load_cert_chain(certificate, self.tls.key)
            except (OSError, ssl.SSLError) as error:
                raise _unreadable(certificate, f"a certificate for {self.tls.key}", error) from None
            if self.port == _ALPN_PORT:
                context.set_alpn_protocols([_ALPN])
        return context

    def __str__(self) -> str:
        scheme = "mqtts" if self.tls else "mqtt"
        user = f"{quote(self.user, safe='')}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{user}{host}:{self.port}"


def _check(files: TlsFiles, secure: bool, text: str) -> None:
    if not secure and files != TlsFiles():
        raise ConfigError(
            "certificates are given for a connection without TLS",
            where=_hidden(text),
            remedy="write mqtts://, or leave them out",
        )
    if (files.certificate is None) != (files.key is None):
        lacking = "key" if files.key is None else "certificate"
        raise ConfigError(f"the {lacking} is missing", remedy="give certificate and key together")
    for path in (files.ca, files.certificate, files.key):
        if path is not None and not path.is_file():
            raise ConfigError("there is no such file", where=str(path))


def _unreadable(path: Path, what: str, error: OSError) -> ConfigError:
    reason = error.strerror if not getattr(error, "reason", None) else error.reason  # type: ignore[attr-defined]
    return ConfigError(
        f"does not hold {what}: {reason}", where=str(path), remedy="give PEM files that go together"
    )


def _hidden(text: str) -> str:
    """The text without what may be a password."""
    return re.sub(r"//[^/]*@", "//…@", text)
