"""HTTP to a registry: authorization, redirects, proxies, and errors that say what to do.

Follows the OCI distribution specification 1.1 and, for bearer tokens, the token
authentication specification of Docker's registry. Credentials go to the registry that
they are for and to the token server that it names, never to where it redirects.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin
from urllib.request import getproxies, parse_http_list, parse_keqv_list, proxy_bypass
from weakref import WeakSet

import msgspec
import urllib3
from urllib3.exceptions import HTTPError, LocationParseError, SSLError
from urllib3.util import Timeout, Url, make_headers, parse_url

from edge_sdk.bundle import oci
from edge_sdk.errors import ConfigError, TransferError
from edge_sdk.transport.credentials import (
    PASSWORD,
    USER,
    Credentials,
    FindCredentials,
    find_credentials,
)
from edge_sdk.transport.packing import unpack
from edge_sdk.transport.source import LOOPBACK, Piece, Reference

Body = Callable[[], "bytes | Iterable[bytes]"]
"""Makes the body of a request, anew for every time it is sent."""

ACCEPT = {"Accept": f"{oci.INDEX}, {oci.MANIFEST}"}
"""Header of requests for manifests; some registries know of none without it."""
_REDIRECTS = 5
_OF_TIME = (9, 10)  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
_NO_TLS = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"}
_ANSWER_LIMIT = 1024 * 1024  # of errors and tokens, in bytes
_SIGN_IN = f"run `docker login`, or set {USER} and {PASSWORD}"


class _Token(msgspec.Struct):
    token: str = ""
    access_token: str = ""


class _Error(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Errors(msgspec.Struct):
    errors: tuple[_Error, ...] = ()


class RegistryClient:
    """Sends requests to registries; safe to use from several threads.

    Args:
        credentials: Finds what to say to a registry that asks who we are.
        ca: A file of certificates to trust in place of the system's.
        connections: Connections per host that are kept open.
        timeout: Seconds without a byte after which a connection counts as lost.

    Raises:
        ConfigError: The file of certificates cannot be read.
    """

    def __init__(
        self,
        credentials: FindCredentials = find_credentials,
        *,
        ca: Path | None = None,
        connections: int = 8,
        timeout: float = 30.0,
    ) -> None:
        self._credentials = credentials
        self._options: dict[str, Any] = {
            "maxsize": connections,
            "retries": False,
            "timeout": Timeout(connect=min(timeout, 10.0), read=timeout),
            "headers": {"User-Agent": "edge-sdk"},
        }
        if ca is not None:
            if not ca.is_file():
                raise ConfigError("no such file of certificates", where=str(ca))
            self._options["ca_certs"] = str(ca)
        self._lock = threading.Lock()
        self._pools: dict[str, urllib3.PoolManager] = {}
        self._authorized: dict[tuple[str, str, str], str] = {}
        self._sockets = _Sockets()

    @contextmanager
    def request(
        self,
        method: str,
        reference: Reference,
        target: str,
        *,
        actions: str = "pull",
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        expect: Collection[int] = (200,),
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """Sends a request and gives the answer, whose body has yet to be read.

        Args:
            method: Of HTTP.
            reference: Names registry and repository.
            target: A path inside the repository (``blobs/sha256:…``), or an absolute URL.
            actions: What a token must allow: ``pull`` or ``pull,push``.
            headers: Beside ``Authorization``.
            body: Of the request.
            expect: Statuses that are no error.

        Raises:
            TransferError: The registry is not reached, or answers with another status.
        """
        scheme = "http" if reference.plain else "https"
        url = urljoin(f"{scheme}://{reference.registry}/v2/{reference.repository}/", target)
        response = self._authorized_answer(method, url, reference, actions, headers or {}, body)
        try:
            if response.status not in expect:
                raise _refusal(response, reference, url)
            yield response
            with _translated(url):
                response.drain_conn()  # its connection serves the next request
        except BaseException:
            response.close()
            raise

    def close(self) -> None:
        """Closes all connections; what is waited for or being read breaks off."""
        self._sockets.shut_down()
        with self._lock:
            for pool in self._pools.values():
                pool.clear()

    def _authorized_answer(
        self,
        method: str,
        url: str,
        reference: Reference,
        actions: str,
        headers: Mapping[str, str],
        body: Body | None,
    ) -> urllib3.BaseHTTPResponse:
        """The final answer, after a look at what the registry wants to know of us."""
        key = (reference.registry, reference.repository, actions)
        response = self._redirected(method, url, reference, key, headers, body)
        if response.status == 401 and _is_of(url, reference):
            challenges = response.headers.getlist("WWW-Authenticate")
            with _translated(url):
                response.drain_conn()
            self._authorized[key] = self._authorize(challenges, reference, actions)
            response = self._redirected(method, url, reference, key, headers, body)
        return response

    def _redirected(
        self,
        method: str,
        url: str,
        reference: Reference,
        key: tuple[str, str, str],
        headers: Mapping[str, str],
        body: Body | None,
    ) -> urllib3.BaseHTTPResponse:
        for _ in range(_REDIRECTS):
            own = key in self._authorized and _is_of(url, reference)
            authorization = {"Authorization": self._authorized[key]} if own else {}
            response = self._send(method, url, {**headers, **authorization}, body and body())
            onward = response.get_redirect_location() if method in ("GET", "HEAD") else None
            if not onward:
                return response
            with _translated(url):
                response.drain_conn()
            url = _no_downgrade(url, urljoin(url, onward))
        raise TransferError("redirects without end", where=url, passing=False)

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes] | None,
    ) -> urllib3.BaseHTTPResponse:
        with _translated(url):
            return self._pool(parse_url(url)).request(
                method, url, headers=dict(headers), body=body, redirect=False, preload_content=False
            )

    def _pool(self, url: Url) -> urllib3.PoolManager:
        """Connections straight to a host, or by way of the environment's proxy for it."""
        host = url.host or ""
        proxy = getproxies().get(url.scheme or "", "")
        if LOOPBACK.fullmatch(host) or proxy_bypass(host):
            proxy = ""
        with self._lock:
            if proxy not in self._pools:
                self._pools[proxy] = self._new_pool(proxy)
            return self._pools[proxy]

    def _new_pool(self, proxy: str) -> urllib3.PoolManager:
        pool = urllib3.PoolManager(**self._options)
        if proxy:
            auth = parse_url(proxy).auth
            headers = make_headers(proxy_basic_auth=auth) if auth else None
            pool = urllib3.ProxyManager(proxy, proxy_headers=headers, **self._options)
        pool.pool_classes_by_scheme = self._sockets.pools
        return pool

    def _authorize(self, challenges: list[str], reference: Reference, actions: str) -> str:
        """The ``Authorization`` that answers a registry's challenge."""
        credentials = self._credentials(reference.registry)
        by_scheme = {
            scheme.lower(): rest for scheme, _, rest in (c.partition(" ") for c in challenges)
        }
        if "bearer" in by_scheme:
            asked = parse_keqv_list(parse_http_list(by_scheme["bearer"]))
            return f"Bearer {self._token(asked, credentials, reference, actions)}"
        if "basic" not in by_scheme or credentials is None:
            raise TransferError(
                "wants to know who asks", where=reference.registry, remedy=_SIGN_IN, passing=False
            )
        return credentials.basic

    def _token(
        self,
        asked: Mapping[str, str],
        credentials: Credentials | None,
        reference: Reference,
        actions: str,
    ) -> str:
        """A token from the server that the registry names."""
        realm = _no_downgrade(
            "http:" if reference.plain else "https:", asked.get("realm", "").partition("#")[0]
        )
        query = {"scope": asked.get("scope") or f"repository:{reference.repository}:{actions}"}
        if "service" in asked:
            query["service"] = asked["service"]
        url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"
        own = {"Authorization": credentials.basic} if credentials else {}
        response = self._send("GET", url, own, None)
        try:
            if response.status != 200:
                raise _refusal(response, reference, realm)
            answer = msgspec.json.decode(
                read_whole(response, realm, _ANSWER_LIMIT).data, type=_Token
            )
        except msgspec.MsgspecError as error:
            raise TransferError(f"gave no token: {error}", where=realm, passing=False) from error
        finally:
            response.close()
        return answer.token or answer.access_token


class _Sockets:
    """Connections, so that a thread that waits for an answer can be woken.

    Attributes:
        pools: Makes the connections, by scheme.
    """

    def __init__(self) -> None:
        self.pools = {
            "http": self._watched(urllib3.HTTPConnectionPool),
            "https": self._watched(urllib3.HTTPSConnectionPool),
        }
        self._all: WeakSet[Any] = WeakSet()
        self._lock = threading.Lock()

    def shut_down(self) -> None:
        """Breaks off what they carry."""
        with self._lock:
            sockets = tuple(self._all)
        for one in sockets:
            with suppress(OSError, AttributeError):  # closed already, or TLS inside TLS
                one.shutdown(socket.SHUT_RDWR)

    def _watched(self, pool: Any) -> Any:
        def connect(connection: Any) -> None:
            pool.ConnectionCls.connect(connection)
            with self._lock:
                self._all.add(connection.sock)

        made = type(pool.ConnectionCls.__name__, (pool.ConnectionCls,), {"connect": connect})
        return type(pool.__name__, (pool,), {"ConnectionCls": made})


def read_pieces(response: urllib3.BaseHTTPResponse, where: str, size: int) -> Iterator[Piece]:
    """The body of an answer piece by piece, as it was before it was compressed.

    Args:
        response: The answer.
        where: Names it in errors.
        size: Most bytes in a piece; what a body grows to is up to its reader to limit.

    Raises:
        TransferError: The connection broke off, or the body is in a form not asked for.
    """
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding not in ("identity", "gzip"):
        raise TransferError(f"answers in {encoding!r} unasked", where=where, passing=False)
    with _translated(where):
        pieces = response.stream(size, decode_content=False)
        if encoding == "gzip":
            yield from unpack(pieces, size)
        else:
            yield from (Piece(data, len(data)) for data in pieces)


def read_whole(response: urllib3.BaseHTTPResponse, where: str, limit: int) -> Piece:
    """A small body, as a whole.

    Raises:
        TransferError: As of :func:`read_pieces`, or it is longer than ``limit`` bytes.
    """
    data, travelled = bytearray(), 0
    for piece in read_pieces(response, where, limit + 1):
        data += piece.data
        travelled += piece.travelled
        if len(data) > limit:
            raise TransferError(f"answers with more than {limit} bytes", where=where, passing=False)
    return Piece(bytes(data), travelled)


@contextmanager
def _translated(url: str) -> Iterator[None]:
    """Turns errors of the network into ours."""
    try:
        yield
    except (HTTPError, OSError, zlib.error) as error:
        lasting = _lasting_remedy(error)
        raise TransferError(
            f"is not reached, or broke off: {error}",
            where=url.partition("?")[0],
            remedy=lasting or _passing_remedy(error),
            passing=lasting is None,
        ) from error


def _lasting_remedy(error: Exception) -> str | None:
    """What to do about an error that will be the same next time."""
    if isinstance(error, LocationParseError):
        return "correct the address"
    cause = _tls_problem(error)
    if isinstance(cause, ssl.SSLCertVerificationError) and cause.verify_code not in _OF_TIME:
        return "name the certificates that it is signed by (--ca)"
    if isinstance(cause, ssl.SSLError) and cause.reason in _NO_TLS:
        return "it does not speak TLS: --plain-http, or http:// before the reference"
    return None


def _passing_remedy(error: Exception) -> str:
    """What to do about an error that may be gone next time."""
    if isinstance(_tls_problem(error), ssl.SSLCertVerificationError):
        today = time.strftime("%Y-%m-%d", time.gmtime())
        return f"renew its certificate, or set the clock of this machine, by which it is {today}"
    return "check address, network and proxy, and try again"


def _tls_problem(error: Exception) -> object:
    return error.args[0] if isinstance(error, SSLError) and error.args else None


def _refusal(response: urllib3.BaseHTTPResponse, reference: Reference, url: str) -> TransferError:
    """The error that an answer stands for, with the registry's own words."""
    status = response.status
    said = f"answers {status}"
    try:
        answer = msgspec.json.decode(read_whole(response, url, _ANSWER_LIMIT).data, type=_Errors)
        said += "".join(f", {error.code}: {error.message}" for error in answer.errors)
    except (msgspec.MsgspecError, TransferError):
        said += f" {response.reason or ''}".rstrip()
    remedy = None
    if status in (401, 403):
        said = f"does not allow this: {said}"
        remedy = f"check the credentials for {reference.registry}: {_SIGN_IN}"
    elif status == 404:
        remedy = "check repository and tag"
    passing = status in (408, 429) or status >= 500
    return TransferError(said, where=url.partition("?")[0], remedy=remedy, passing=passing)


def _is_of(url: str, reference: Reference) -> bool:
    """Whether a URL is the registry's own, so that it may see its credentials."""
    scheme = "http" if reference.plain else "https"
    return _origin(url) == _origin(f"{scheme}://{reference.registry}")


def _origin(url: str) -> tuple[str | None, str | None, int]:
    parsed = parse_url(url)
    return parsed.scheme, parsed.host, parsed.port or {"http": 80}.get(parsed.scheme or "", 443)


def _no_downgrade(before: str, after: str) -> str:
    """An address to go on to, unless that would leave TLS or HTTP."""
    allowed = ("https:",) if before.startswith("https:") else ("https:", "http:")
    if not after.startswith(allowed):
        raise TransferError(
            f"sends us on to {after!r}, which is not {' or '.join(allowed)}//",
            where=before,
            passing=False,
        )
    return after
