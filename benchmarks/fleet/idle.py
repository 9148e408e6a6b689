"""What an agent with no model costs: memory of its process, and of the fleet's server."""

from __future__ import annotations

import time

from benchmarks.fleet import cloud
from benchmarks.llm.contest import Memory
from benchmarks.result import Outcome, Row

MIB = 2**20
SETTLE_SECONDS = 5.0  # connected, presence and first report said


def run(quick: bool) -> Outcome:
    """One agent, idle and connected; the leanest of a few, for what else runs only adds."""
    with cloud.cloud() as here:
        found = [_idle(here) for _ in range(1 if quick else 5)]
        server = Memory.of(here.process)
    agent = min(found, key=lambda one: one.pss)
    return Outcome(
        rows=(
            Row(
                "agent, connected and idle with no model: resident memory, proportional share",
                f"{agent.rss / MIB:.1f} MiB RSS, {agent.pss / MIB:.1f} MiB PSS",
            ),
        ),
        figures={
            "agent_rss_mib": round(agent.rss / MIB, 1),
            "agent_pss_mib": round(agent.pss / MIB, 1),
            "agent_private_mib": round(agent.private / MIB, 1),
            "server_rss_mib": round(server.rss / MIB, 1),
            "server_pss_mib": round(server.pss / MIB, 1),
        },
    )


def _idle(here: cloud.Cloud) -> Memory:
    with cloud.agents(here, 1) as [agent]:
        time.sleep(SETTLE_SECONDS)
        return Memory.of(agent.process)
