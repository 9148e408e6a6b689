"""The agent's loop: takes in what is desired, has the next step done, and reports.

::

    link ── messages ──> ShadowClient ── desired ──> journal ── next_step ──> Executor ──> Router
      ^                       ^                                                  │
      └── presence, reports ──┴──────────── reported <───────────────────────────┘

:meth:`Agent.tick` does all that is due and says how long nothing will be; it reads no clock and
starts no thread of its own, so that a month passes in a test in no time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from edge_sdk import __version__
from edge_sdk.agent import plan, reports
from edge_sdk.agent.config import AgentConfig
from edge_sdk.agent.execute import Executor, serving
from edge_sdk.agent.postman import Postman
from edge_sdk.agent.presence import Presence
from edge_sdk.agent.shadow_client import ShadowClient, Wish, read_wish
from edge_sdk.agent.trials import Trials
from edge_sdk.agent.watch import health_of
from edge_sdk.errors import WorkError
from edge_sdk.runtime import process
from edge_sdk.serving.router import Router
from edge_sdk.shadow.models import Desired, Health, ReportedAgent, ReportedModel
from edge_sdk.transport.link import Link

if TYPE_CHECKING:
    from edge_sdk.agent.assembly import Surroundings

_MEMORY_SECONDS = 30.0  # reading it takes the kernel milliseconds


class Agent:
    """Reconciles what a device should run with what it does.

    Args:
        config: What it was told.
        link: The connection, not opened yet.
        executor: What steps are done by.
        router: What serves.
        shadow: Its side of the shadow.
        presence: Signs of life.
        postman: Tells what happened.
        trials: Measures candidates.
        trial_shadow: The shadow that asks for that, where the cloud has it.
        around: What it gets from the world.
    """

    def __init__(
        self,
        config: AgentConfig,
        link: Link,
        executor: Executor,
        router: Router,
        shadow: ShadowClient,
        presence: Presence,
        postman: Postman,
        trials: Trials,
        trial_shadow: ShadowClient | None,
        around: Surroundings,
    ) -> None:
        self._config = config
        self._link = link
        self._executor = executor
        self._router = router
        self._shadow = shadow
        self._presence = presence
        self._postman = postman
        self._trials = trials
        self._trial_shadow = trial_shadow
        self._around = around
        self._clock = around.clock
        self._busy = threading.Event()
        self._trying = False
        self._begun = around.clock()
        self._about = ReportedAgent()
        self._measure_at = self._begun
        self._health: dict[tuple[str, str], Health | None] = {}
        self._health_at = self._begun
        self._unreadable: dict[str, str] = {}
        self._reported = False

    def open(self) -> None:
        """Begins to connect."""
        self._link.open(self._connection_changed)

    def stop(self) -> None:
        """Says farewell; what is under way is taken up again at the next start."""
        self._executor.cancel()
        self._trials.cancel()
        self._link.close(self._presence.farewell())
        self._postman.end()

    def close(self) -> None:
        """Frees what is loaded and does not serve, and connections of downloads."""
        self._executor.close()

    def tick(self) -> float | None:
        """Does what is due.

        Returns:
            Seconds until something is due though nothing comes; ``None`` for never.
        """
        desired = self._shadow.take()
        # A shadow that says nothing of models leaves everything as it is.
        if desired is not None and isinstance(models := desired.get("models"), dict):
            self._desire(read_wish(models))
        self._hear_of_trials()
        self._presence.attend(self._link)
        self._shadow.attend()
        self._postman.attend()
        stepped = self._act()
        self._measure()
        reported, told = self._shadow.report(self._state()), self._tell_of_trials()
        self._reported = reported and told
        return 0.0 if stepped else self._idle_seconds()

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do, or what is left must wait."""
        return not self._busy.is_set() and self._next_step() is None

    @property
    def settled(self) -> bool:
        """Whether nothing is left to do, and the cloud knows."""
        return self._reported and self.idle and not self._trials.ready and self._postman.settled

    @property
    def heard(self) -> bool:
        """Whether the cloud has said what is desired."""
        return self._shadow.current

    @property
    def models(self) -> dict[str, ReportedModel]:
        """What is reported of each model."""
        said = reports.reported(self._executor.journal, self._now())
        for name, error in self._unreadable.items():
            known = said.get(name, ReportedModel())
            said[name] = msgspec.structs.replace(known, status="failed", error=error)
        return said

    def _desire(self, wish: Wish) -> None:
        """Takes a wish; what cannot be read of it stays as it was."""
        self._unreadable = dict(wish.unreadable)
        before = (self._executor.journal.desired or Desired()).models
        kept = {name: model for name, model in before.items() if name in wish.unreadable}
        self._executor.desire(Desired(models={**kept, **wish.models}))

    def _hear_of_trials(self) -> None:
        if self._trial_shadow is None:
            return
        asked = self._trial_shadow.take()
        if asked is not None:
            self._trials.desire(asked, self._trial_shadow.reported)
        self._trial_shadow.attend()

    def _tell_of_trials(self) -> bool:
        """Reports the trial; whether the cloud knows all of it."""
        tried = self._trials.result
        if self._trial_shadow is None:
            return True
        if tried is None and "trial" not in self._trial_shadow.reported:
            return True
        return self._trial_shadow.report(_as_json({"trial": tried}))

    def _connection_changed(self, connected: bool) -> None:
        self._presence.connection_changed(connected)
        self._shadow.connection_changed(connected)
        if self._trial_shadow is not None:
            self._trial_shadow.connection_changed(connected)
        self._postman.connection_changed(connected)

    def _act(self) -> bool:
        """Has the next step done, one at a time; whether there is one."""
        if self._busy.is_set():
            if plan.is_stale(self._executor.journal, self._executor.step):
                self._executor.cancel()
            if self._trying and self._next_step() is not None:
                self._trials.cancel()  # it waits until there is nothing better to do
            return False
        step = self._next_step()
        journal = self._executor.journal
        self._router.expect(name for name, entry in journal.models.items() if entry.running)
        if step is not None:
            return self._begin(lambda: self._executor.perform(step))
        if self._trials.ready:
            self._trying = True
            return self._begin(self._trials.begin())
        return False

    def _begin(self, work: Callable[[], None]) -> bool:
        """Has something done; whether it is done already."""
        self._busy.set()
        self._around.perform(lambda: self._do(work))
        return not self._busy.is_set()

    def _do(self, work: Callable[[], None]) -> None:
        try:
            work()
        finally:
            self._trying = False
            self._busy.clear()
            self._around.wake()

    def _next_step(self) -> plan.Step | None:
        return plan.next_step(self._executor.journal, self._executor.present())

    def _state(self) -> Mapping[str, Any]:
        return _as_json({"models": self.models, "agent": self._about})

    def _now(self) -> reports.Now:
        return reports.Now(
            serving=serving(self._router),
            step=self._executor.step,
            progress=self._executor.progress,
            problems=self._executor.problems,
            unloadable=self._executor.unloadable,
            health={key: health for key, health in self._health.items() if health},
        )

    def _measure(self) -> None:
        """Looks at memory and health, now and then."""
        now = self._clock()
        if now >= self._measure_at:
            self._measure_at = now + _MEMORY_SECONDS
            self._about = reports.damped_agent(
                self._about,
                ReportedAgent(
                    version=__version__,
                    profile=self._around.profile,
                    memory=memory_in_use(),
                    uptime=int(now - self._begun),
                    labels=self._config.labels,
                    trials=self._trial_shadow is not None,
                ),
            )
        if now >= self._health_at:
            self._health_at = now + self._config.report.health
            self._health = {
                (name, served.digest): reports.damped(
                    self._health.get((name, served.digest)), health_of(served)
                )
                for name, route in self._router.routes.items()
                for served in route.versions
            }

    def _idle_seconds(self) -> float | None:
        moments = [
            self._presence.due(self._link),
            self._shadow.due(),
            self._trial_shadow.due() if self._trial_shadow else None,
            self._postman.due(),
            self._executor.due,
            self._trials.due,
            self._health_at if self._router.routes and self._link.connected else None,
        ]
        known = [moment for moment in moments if moment is not None]
        return max(0.0, min(known) - self._clock()) if known else None


def memory_in_use() -> int:
    """Memory in use, in bytes; shared pages in full where the kernel does not tell shares."""
    try:
        return process.pss()
    except (OSError, WorkError):
        return process.rss()


def _as_json(value: Mapping[str, Any]) -> dict[str, Any]:
    """A value as it comes back from the shadow: with lists, which no tuple would equal."""
    said: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(value))
    return said
