"""The other end of the API: what ``edge-sdk fleet`` and programs ask a fleet's server by."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from typing import TypeVar
from urllib.parse import quote, urlencode

import msgspec
import urllib3

from edge_sdk import errors
from edge_sdk.errors import ConfigError, EdgeSdkError, FleetError, TransferError
from edge_sdk.fleet import views

DEFAULT_SERVER = "http://127.0.0.1:8080"
_TIMEOUT_S = 60.0  # resolving a reference may wait for a registry
T = TypeVar("T", bound=msgspec.Struct)


class FleetClient:
    """Asks one server.

    Args:
        server: ``http[s]://host[:port]``.
        token: What the server asks for, if it does.
        ca: File of certificates to trust in place of the system's.

    Every method raises the error that the server met, as one of :mod:`edge_sdk.errors`, and
    :class:`~edge_sdk.errors.TransferError` where the server is not reached.

    Raises:
        ConfigError: The server's address is none.
    """

    def __init__(
        self, server: str = DEFAULT_SERVER, token: str | None = None, ca: str | None = None
    ) -> None:
        if not server.startswith(("http://", "https://")):
            raise ConfigError(
                f"{server!r} is no server", where="--server", remedy=f"write {DEFAULT_SERVER}"
            )
        self._server = server.rstrip("/")
        self._headers = {"x-edge-sdk-by": _user()}
        if token:
            self._headers["authorization"] = f"Bearer {token}"
        self._pool = urllib3.PoolManager(ca_certs=ca, retries=False)

    def devices(self, selector: str = "all") -> views.DeviceList:
        """The devices that a selector means."""
        return self._get(f"/devices?{urlencode({'selector': selector})}", views.DeviceList)

    def device(self, thing: str) -> views.DeviceDetail:
        """One device."""
        return self._get(f"/devices/{quote(thing, safe='')}", views.DeviceDetail)

    def label(self, thing: str, labels: dict[str, str | None]) -> views.DeviceDetail:
        """Gives a device labels; ``None`` takes one away."""
        request = views.LabelRequest(labels=labels)
        path = f"/devices/{quote(thing, safe='')}/labels"
        return self._send("PATCH", path, request, views.DeviceDetail)

    def forget(self, thing: str) -> views.DeviceDetail:
        """Forgets a device that is gone; gives what was known of it."""
        path = f"/devices/{quote(thing, safe='')}"
        return self._send("DELETE", path, views.View(), views.DeviceDetail)

    def begin_trial(self, thing: str, request: views.TrialRequest) -> views.TrialView:
        """Asks a device to measure candidates, in place of what it was asked before."""
        return self._send("POST", _trial(thing), request, views.TrialView)

    def trial(self, thing: str) -> views.TrialView:
        """How far a device is with measuring."""
        return self._get(_trial(thing), views.TrialView)

    def end_trial(self, thing: str, number: str) -> views.TrialView:
        """Asks a device for a trial no more; another one goes on."""
        path = f"{_trial(thing)}/{quote(number, safe='')}"
        return self._send("DELETE", path, views.View(), views.TrialView)

    def deploy(self, request: views.DeployRequest) -> views.Deployment:
        """Begins a rollout, or says what it would do."""
        return self._send("POST", "/rollouts", request, views.Deployment)

    def rollouts(self) -> views.RolloutList:
        """The last rollouts, the newest first."""
        return self._get("/rollouts", views.RolloutList)

    def rollout(self, number: int) -> views.RolloutDetail:
        """One rollout."""
        return self._get(f"/rollouts/{number}", views.RolloutDetail)

    def operate(self, number: int, action: str) -> views.RolloutDetail:
        """Pauses, resumes, approves, aborts or rolls back a rollout."""
        path = f"/rollouts/{number}/{action}"
        return self._send("POST", path, views.View(), views.RolloutDetail)

    def progress(self, number: int) -> Iterator[views.RolloutView]:
        """A rollout as it is, and after every change until it has ended."""
        response = self._request("GET", f"/rollouts/{number}/progress", stream=True)
        rest = b""
        try:
            for piece in response.stream(65536):
                *lines, rest = (rest + piece).split(b"\n\n")
                for line in lines:
                    if line.startswith(b"data: "):
                        yield msgspec.json.decode(line[6:], type=views.RolloutView)
        except urllib3.exceptions.HTTPError as error:
            raise self._unreached(error) from error
        finally:
            response.release_conn()

    def audit(
        self, *, rollout: int | None = None, thing: str | None = None, before: int | None = None
    ) -> views.AuditList:
        """What happened, the newest first."""
        asked = {"rollout": rollout, "thing": thing, "before": before}
        query = urlencode({name: value for name, value in asked.items() if value is not None})
        return self._get(f"/audit?{query}", views.AuditList)

    def _get(self, path: str, type_: type[T]) -> T:
        return self._decoded(self._request("GET", path), type_)

    def _send(self, method: str, path: str, value: msgspec.Struct, type_: type[T]) -> T:
        return self._decoded(self._request(method, path, msgspec.json.encode(value)), type_)

    def _request(
        self, method: str, path: str, body: bytes | None = None, *, stream: bool = False
    ) -> urllib3.BaseHTTPResponse:
        headers = self._headers | ({"content-type": "application/json"} if body else {})
        try:
            response = self._pool.request(
                method, f"{self._server}/api/v1{path}", body=body, headers=headers,
                preload_content=not stream,
                timeout=urllib3.Timeout(connect=10.0, read=_TIMEOUT_S),
            )  # fmt: skip
            if response.status >= 300:
                raise _error(response, self._server)
        except urllib3.exceptions.HTTPError as error:
            raise self._unreached(error) from error
        return response

    def _decoded(self, response: urllib3.BaseHTTPResponse, type_: type[T]) -> T:
        try:
            return msgspec.json.decode(response.data, type=type_)
        except msgspec.DecodeError as error:
            raise FleetError(
                f"the server's answer is not understood: {error}",
                where=self._server,
                remedy="use the same version of edge-sdk as the server",
            ) from error

    def _unreached(self, error: Exception) -> TransferError:
        return TransferError(
            f"the fleet's server is not reached: {error}",
            where=self._server,
            remedy="start it with edge-sdk fleet serve, or name another by --server",
        )


def _error(response: urllib3.BaseHTTPResponse, server: str) -> EdgeSdkError:
    """The error that an answer stands for."""
    try:
        problem = msgspec.json.decode(response.data, type=views.Problem)
    except msgspec.DecodeError:
        return FleetError(f"answers {response.status}, not as a fleet's server", where=server)
    kind = getattr(errors, problem.kind, None)
    if not (isinstance(kind, type) and issubclass(kind, EdgeSdkError)):
        kind = FleetError
    return kind(problem.message, where=problem.where, remedy=problem.remedy)


def _trial(thing: str) -> str:
    return f"/devices/{quote(thing, safe='')}/trial"


def _user() -> str:
    try:
        return getpass.getuser().encode("ascii", "replace").decode()
    except (KeyError, OSError):  # no such user on this machine, as in some containers
        return ""
