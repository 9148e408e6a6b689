"""Asks devices to measure candidates, by the shadow that they follow for it."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from http import HTTPStatus

import msgspec

from edge_sdk.errors import FleetError
from edge_sdk.fleet.shadow_service import ShadowService
from edge_sdk.shadow.models import Wire
from edge_sdk.shadow.trials import SHADOW, Trial, TrialCandidate, TrialResult


class _Asked(Wire, frozen=True, kw_only=True):
    id: str = ""


class _Desired(Wire, frozen=True, kw_only=True):
    trial: _Asked | None = None


class _Reported(Wire, frozen=True, kw_only=True):
    trial: TrialResult | None = None


class _State(Wire, frozen=True, kw_only=True):
    desired: _Desired = _Desired()
    reported: _Reported = _Reported()


class _Document(Wire, frozen=True, kw_only=True):
    state: _State = _State()
    version: int = 0


class _Rejected(Wire, frozen=True, kw_only=True):
    code: int = 0
    message: str = ""


async def begin(
    shadows: ShadowService,
    thing: str,
    candidates: Iterable[TrialCandidate],
    *,
    seconds: float,
    threads: int,
) -> Trial:
    """Asks a device to measure candidates, in place of what it was asked before.

    Args:
        shadows: The shadow service.
        thing: The device.
        candidates: Each with a name of its own.
        seconds: Time to measure each for.
        threads: Threads of each session; 0 for as many as its profile says.

    Raises:
        FleetError: The shadow service refuses.
    """
    number = secrets.token_hex(8)
    trial = Trial(id=number, candidates=tuple(candidates), seconds=seconds, threads=threads)
    await _desire(shadows, thing, {"trial": msgspec.to_builtins(trial)})
    return trial


async def end(shadows: ShadowService, thing: str, number: str) -> None:
    """Asks for a trial no more; the device drops what it has. Another one is left alone.

    Raises:
        FleetError: The shadow service refuses.
    """
    while (document := await _document(shadows, thing)) and _id(document) == number:
        if await _desire(shadows, thing, None, document.version):
            return


async def state(shadows: ShadowService, thing: str) -> tuple[str, TrialResult | None]:
    """The trial that a device is asked for, by its id, and what it last said of one.

    Raises:
        FleetError: It cannot be read.
    """
    document = await _document(shadows, thing)
    return (_id(document), document.state.reported.trial) if document else ("", None)


def _id(document: _Document) -> str:
    asked = document.state.desired.trial
    return asked.id if asked else ""


async def _document(shadows: ShadowService, thing: str) -> _Document | None:
    reply = (await shadows.submit(thing, SHADOW, "get", b""))[0]
    if reply.suffix != "accepted":
        return None
    try:
        return msgspec.json.decode(reply.payload, type=_Document)
    except msgspec.DecodeError as error:
        raise FleetError(
            f"what its shadow says of a trial is not understood: {error}", where=thing
        ) from error


async def _desire(
    shadows: ShadowService, thing: str, desired: object, version: int | None = None
) -> bool:
    """Writes what is desired; ``False`` where the shadow has another version by now."""
    update: dict[str, object] = {"state": {"desired": desired}}
    if version is not None:
        update["version"] = version
    reply = (await shadows.submit(thing, SHADOW, "update", msgspec.json.encode(update)))[0]
    if reply.suffix == "accepted":
        return True
    refused = msgspec.json.decode(reply.payload, type=_Rejected)
    if version is not None and refused.code == HTTPStatus.CONFLICT:
        return False
    raise FleetError(f"the shadow service refuses: {refused.message}", where=thing)
