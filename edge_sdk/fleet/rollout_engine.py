"""Runs rollouts: reads devices, decides, writes down, and tells devices.

::

    devices -> decide (pure) -> one transaction: rollout, audit, webhooks -> shadows -> devices

A decision is durable before any device hears of it. What a server that was killed had decided
and not written to shadows yet is written by the next one; writing it twice changes nothing.

While the broker is away, what is known is still judged, and what somebody asks for is done; for
what devices have not said, the clock stands still.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from edge_sdk.errors import FleetError, NotKnownError
from edge_sdk.fleet import audit, rollout_store
from edge_sdk.fleet.database.engine import Database
from edge_sdk.fleet.devices import Devices
from edge_sdk.fleet.rollout.decide import Decision, decide, event_of
from edge_sdk.fleet.rollout.events import Event
from edge_sdk.fleet.rollout.late import join
from edge_sdk.fleet.rollout.layout import Layout, lay_out
from edge_sdk.fleet.rollout.outage import extended, last_heard
from edge_sdk.fleet.rollout.state import (
    ENDED,
    Member,
    Plan,
    Rollout,
    Wish,
    named,
    shadow_update,
    wanted,
)
from edge_sdk.fleet.shadow_service import ShadowService
from edge_sdk.fleet.tasks import together
from edge_sdk.fleet.views import RolloutView
from edge_sdk.fleet.webhooks import Webhooks
from edge_sdk.shadow import trials
from edge_sdk.shadow.algebra import Reply
from edge_sdk.shadow.models import SHADOW

_LOG = logging.getLogger(__name__)
_TICK_S = 1.0
_SHORTEST_TICK_S = 0.1  # a burst of reports is looked at once
_SIGN_OF_LIFE_S = 15.0
_AT_ONCE = 500  # shadows that are written in one go
_LISTED = 100


class RolloutEngine:
    """The rollouts of a fleet.

    Args:
        database: Where they are kept.
        shadows: Writes what devices should run.
        devices: What devices report.
        webhooks: Tells other programs.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        database: Database,
        shadows: ShadowService,
        devices: Devices,
        webhooks: Webhooks,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._shadows = shadows
        self._devices = devices
        self._webhooks = webhooks
        self._clock = clock
        self._active: dict[int, Rollout] = {}
        self._standing: dict[int, Rollout] = {}
        self._unrecorded: tuple[Event, ...] = ()
        self._deaf_since: float | None = None
        self._untold = asyncio.Event()
        self._deciding = asyncio.Lock()
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()

    async def load(self) -> None:
        """Reads the rollouts that are under way."""
        for rollout in await self._database.read(rollout_store.unended):
            self._active[rollout.id] = rollout
        await self._load_standing()
        known = self._devices.all.values()
        self._deaf_since = last_heard(self._active.values(), known, self._clock())

    async def _load_standing(self) -> None:
        found = await self._database.read(rollout_store.standing)
        self._standing = {rollout.id: rollout for rollout in found}

    def wake(self) -> None:
        """Says that something may have changed; otherwise it is looked every second."""
        self._wake.set()

    @property
    def deaf(self) -> bool:
        """Whether the broker is away, so that devices are neither told nor heard."""
        return self._deaf_since is not None

    async def run(self, connected: Callable[[], bool]) -> None:
        """Takes rollouts as far as they go until it is cancelled.

        Args:
            connected: Whether the broker is reached.
        """
        await together(self._decide_all(connected), self._tell_everybody())

    async def _decide_all(self, connected: Callable[[], bool]) -> None:
        while True:
            self._wake.clear()
            began = time.monotonic()
            await self._try(self._listen(connected()))
            for number in list(self._active):
                await self._try(self._advance(number))
            await self._try(self._ask_late())
            self._untold.set()
            # Ten thousand devices that report all the time must not hold up their own shadows.
            pause = max(_SHORTEST_TICK_S, 9 * (time.monotonic() - began))
            await asyncio.sleep(min(pause, _TICK_S))
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _TICK_S)

    def lay_out(self, plan: Plan, profiles: Iterable[str]) -> Layout:
        """Who would be asked, as :func:`~edge_sdk.fleet.rollout.layout.lay_out` has it.

        Raises:
            ConfigError: An option is wrong, or no device is meant.
            AdmissionError: Devices have a newer version.
            FleetError: Another rollout of the model is under way on some of the devices.
        """
        layout = lay_out(plan, self._devices.all, profiles)
        self._require_free(plan, layout.members)
        return layout

    async def deploy(self, plan: Plan, profiles: Iterable[str], by: str) -> Rollout:
        """Begins a rollout.

        Args:
            plan: What is asked for.
            profiles: Device profiles that the bundle has a variant for.
            by: Who asks.

        Raises:
            ConfigError, AdmissionError, FleetError: As :meth:`lay_out`.
        """
        async with self._deciding:
            now = self._clock()
            members = self.lay_out(plan, profiles).members
            rollout = Rollout(id=0, plan=plan, by=by, created_at=now, members=members)

            def create(connection: sa.Connection) -> Rollout:
                created = rollout_store.create(connection, rollout)
                text = f"{plan.model} {plan.version} for {len(members)} devices"
                event = event_of(created, "rollout.started", text, by=by)
                self._record(connection, (event,), now)
                return created

            created = await self._database.write(create)
            self._keep(created)
        self.wake()
        return created

    async def operate(self, number: int, action: Callable[[Rollout], Decision]) -> Rollout:
        """Does to a rollout what one of :mod:`~edge_sdk.fleet.rollout.operate` says.

        Raises:
            NotKnownError: There is no such rollout.
            FleetError: The action is refused.
        """
        async with self._deciding:
            rollout = await self.rollout(number)
            decision = action(rollout)
            if number not in self._active:
                self._require_free(rollout.plan, rollout.members)
            after = await self._take(rollout, decision)
        self.wake()
        return after

    async def forget(self, thing: str, by: str) -> None:
        """Forgets a device that is gone, and what it should run; nothing of the audit.

        Raises:
            FleetError: It is online, or a rollout is under way on it, or the broker is away.
        """
        if self.deaf:
            raise FleetError(
                "the broker is away, and would tell of it again",
                where=thing,
                remedy="try again later",
            )
        async with self._deciding:
            if self._devices.all[thing].online:
                raise FleetError(
                    "is online, and would be known again at once",
                    where=thing,
                    remedy="stop its agent first",
                )
            for rollout in self._active.values():
                if any(member.thing == thing for member in rollout.members):
                    raise FleetError(
                        f"rollout {rollout.id} is {rollout.status} on it",
                        where=thing,
                        remedy="wait until it ends, or abort it",
                    )
            for name in (SHADOW, trials.SHADOW):
                await self._shadows.submit(thing, name, "delete", b"")
            await self._devices.forget(thing)
        await self.record((Event(kind="device.forgotten", text="", thing=thing, by=by),))

    async def rollout(self, number: int) -> Rollout:
        """A rollout by its number.

        Raises:
            NotKnownError: There is none.
        """
        found = self._active.get(number)
        if found is None:
            found = await self._database.read(lambda db: rollout_store.one(db, number))
        if found is None:
            raise NotKnownError("there is no such rollout", where=f"rollout {number}")
        return found

    async def rollouts(self) -> tuple[RolloutView, ...]:
        """The last hundred, the newest first."""
        return await self._database.read(lambda db: rollout_store.newest(db, _LISTED))

    async def follow(self, number: int) -> AsyncIterator[Rollout]:
        """A rollout as it is now, after every change and now and then, until it has ended.

        Raises:
            NotKnownError: There is none.
        """
        while True:
            changed = self._changed
            rollout = await self.rollout(number)
            yield rollout
            if rollout.status in ENDED:
                return
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(changed.wait(), _SIGN_OF_LIFE_S)

    async def record(self, events: tuple[Event, ...]) -> None:
        """Writes down what has happened, and tells other programs."""
        if events:
            now = self._clock()
            await self._database.write(lambda db: self._record(db, events, now))
            self._webhooks.wake()

    def _require_free(self, plan: Plan, members: Iterable[Member]) -> None:
        """Refuses devices that another rollout of the same model is under way on."""
        chosen = {member.thing for member in members}
        for other in self._active.values():
            both = sorted(chosen.intersection(member.thing for member in other.members))
            if other.plan.model == plan.model and both:
                raise FleetError(
                    f"rollout {other.id} of {plan.model} is {other.status} on {named(both)}",
                    where=plan.ref,
                    remedy="wait until it ends, or abort it",
                )

    async def _try(self, job: Awaitable[None]) -> None:
        try:
            await job
        except SQLAlchemyError:
            # A full disk or a database that is away ends no server; the state is as it was.
            _LOG.exception("rollouts could not be written down; trying again")
        except Exception:  # noqa: BLE001 - the others, and shadows, go on where one is stuck
            _LOG.exception("a rollout could not be decided; trying again")

    async def _listen(self, connected: bool) -> None:
        """Takes in what devices say, and notes since when none can."""
        await self._look(connected)
        now = self._clock()
        if not connected:
            if self._deaf_since is None:
                _LOG.warning("the broker is away: rollouts wait for it")
                self._deaf_since = now
                self._announce()
            return
        if self._deaf_since is not None:
            lost, self._deaf_since = now - self._deaf_since, None
            self._announce()
            for number in list(self._active):
                async with self._deciding:
                    if rollout := self._active.get(number):
                        await self._take(rollout, Decision(extended(rollout, lost, now)))

    async def _look(self, connected: bool) -> None:
        # What cannot be written down now is tried again with the next ones.
        self._unrecorded += self._devices.look(connected)
        await self.record(self._unrecorded)
        self._unrecorded = ()
        await self._devices.save()

    async def _advance(self, number: int) -> None:
        async with self._deciding:
            rollout = self._active.get(number)
            if rollout is None:  # somebody has ended it meanwhile
                return
            now = self._clock() if self._deaf_since is None else self._deaf_since
            await self._take(rollout, decide(rollout, self._devices.all, now))

    async def _ask_late(self) -> None:
        """Asks devices that have appeared since for the versions that stay in force."""
        async with self._deciding:
            standing = tuple(self._standing.values())
            found = join(standing, self._active.values(), self._devices.all, self._clock())
            for decision in tuple(found):
                await self._take(self._standing[decision.rollout.id], decision)

    async def _tell_everybody(self) -> None:
        """Tells devices what was decided; waits where the broker is away, and holds up nothing."""
        while True:
            await self._untold.wait()
            self._untold.clear()
            for number in {**self._active, **self._standing}:
                await self._try(self._tell_all(number))

    async def _tell_all(self, number: int) -> None:
        rollout = self._active.get(number) or self._standing.get(number)
        for members in _portions(rollout.unwritten() if rollout else ()):
            await self._tell(number, {member.thing for member in members})

    async def _tell(self, number: int, things: set[str]) -> None:
        """Writes to shadows what devices should run, and down that it is there."""
        rollout = await self.rollout(number)  # which may have turned back meanwhile
        plan = rollout.plan
        members = [member for member in rollout.unwritten() if member.thing in things]
        answers = await asyncio.gather(
            *(
                self._shadows.submit(
                    member.thing, SHADOW, "update",
                    shadow_update(plan.model, wanted(member, plan)),
                )
                for member in members
            )
        )  # fmt: skip
        replies: dict[str, tuple[Wish, str]] = {}
        for member, answer in zip(members, answers, strict=True):
            refusal = _refusal(answer[0])
            if refusal is None or refusal.code < 500:
                replies[member.thing] = (member.wish, refusal.message if refusal else "")
        async with self._deciding:
            current = await self.rollout(rollout.id)
            await self._take(current, Decision(current.with_replies(replies, self._clock())))

    async def _take(self, before: Rollout, decision: Decision) -> Rollout:
        """Makes a decision durable, then takes it over."""
        after, events = decision.rollout, decision.events
        if after == before and not events:
            return before
        now = self._clock()

        def write(connection: sa.Connection) -> None:
            rollout_store.update(connection, before, after)
            self._record(connection, events, now)

        await self._database.write(write)
        for event in events:
            _LOG.info("rollout %s: %s: %s", event.rollout, event.kind, event.text)
        self._keep(after)
        if after.status != before.status and ENDED & {before.status, after.status}:
            await self._load_standing()
        self._webhooks.wake()
        return after

    def _record(self, connection: sa.Connection, events: tuple[Event, ...], now: float) -> None:
        audit.record(connection, events, now)
        self._webhooks.enqueue(connection, events, now)

    def _keep(self, rollout: Rollout) -> None:
        if rollout.status in ENDED:
            self._active.pop(rollout.id, None)
        else:
            self._active[rollout.id] = rollout
        if rollout.id in self._standing:
            self._standing[rollout.id] = rollout
        self._announce()

    def _announce(self) -> None:
        """Wakes who follows a rollout."""
        self._changed.set()
        self._changed = asyncio.Event()


class _Rejected(msgspec.Struct):
    code: int = 500
    message: str = ""


def _refusal(reply: Reply) -> _Rejected | None:
    if reply.suffix == "accepted":
        return None
    return msgspec.json.decode(reply.payload, type=_Rejected)


def _portions(members: Iterable[Member]) -> Iterator[list[Member]]:
    remaining = iter(members)
    while some := list(islice(remaining, _AT_ONCE)):
        yield some
