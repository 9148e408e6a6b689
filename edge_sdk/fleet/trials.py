"""Asks devices to measure candidates, by the shadow that they follow for it."""

from __future__ import annotations

import secrets

import msgspec

from edge_sdk.errors import FleetError
from edge_sdk.fleet.shadow_service import ShadowService
from edge_sdk.shadow.models import Wire
from edge_sdk.shadow.trials import SHADOW, Trial, TrialCandidate, TrialResult


class _Reported(Wire, frozen=True, kw_only=True):
    trial: TrialResult | None = None


class _State(Wire, frozen=True, kw_only=True):
    reported: _Reported = _Reported()


class _Document(Wire, frozen=True, kw_only=True):
    state: _State = _State()


async def begin(
    shadows: ShadowService,
    thing: str,
    candidates: dict[str, TrialCandidate],
    *,
    seconds: float,
    threads: int,
) -> Trial:
    """Asks a device to measure candidates; what it was asked before is dropped.

    Args:
        shadows: The shadow service.
        thing: The device.
        candidates: Name -> candidate.
        seconds: Time to measure each for.
        threads: Threads of each session; 0 for as many as its profile says.

    Raises:
        FleetError: The shadow service refuses.
    """
    trial = Trial(id=secrets.token_hex(8), candidates=candidates, seconds=seconds, threads=threads)
    await _update(shadows, thing, {"desired": None})  # nothing of an older one is merged into it
    await _update(shadows, thing, {"desired": {"trial": msgspec.to_builtins(trial)}})
    return trial


async def end(shadows: ShadowService, thing: str) -> None:
    """Asks for nothing any more; the device drops what it has.

    Raises:
        FleetError: The shadow service refuses.
    """
    await _update(shadows, thing, {"desired": None})


async def result(shadows: ShadowService, thing: str) -> TrialResult | None:
    """What a device last said of a trial.

    Raises:
        FleetError: It cannot be read.
    """
    reply = (await shadows.submit(thing, SHADOW, "get", b""))[0]
    if reply.suffix != "accepted":
        return None
    try:
        return msgspec.json.decode(reply.payload, type=_Document).state.reported.trial
    except msgspec.DecodeError as error:
        raise FleetError(
            f"what it reports of a trial is not understood: {error}", where=thing
        ) from error


async def _update(shadows: ShadowService, thing: str, state: dict[str, object]) -> None:
    payload = msgspec.json.encode({"state": state})
    reply = (await shadows.submit(thing, SHADOW, "update", payload))[0]
    if reply.suffix != "accepted":
        raise FleetError(f"the shadow service refuses: {reply.payload.decode()}", where=thing)
