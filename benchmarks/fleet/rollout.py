"""From ``fleet deploy`` to the last of twenty agents running the version, all on this machine."""

from __future__ import annotations

from statistics import median

from benchmarks.fleet import cloud
from benchmarks.result import Outcome, Row

AGENTS = 20


def run(quick: bool) -> Outcome:
    """The first version goes to empty stores; then versions that share its weights."""
    count = 4 if quick else AGENTS
    versions = cloud.bundles(2)
    with cloud.cloud(versions) as here, cloud.agents(here, count):
        first = here.deploy(versions[0])
        others = [here.deploy(versions[number % 2]) for number in range(1, 2 if quick else 6)]
    return Outcome(
        rows=(
            Row(
                f"from deploy until all of {count} agents run it, on the same cores: the first "
                "version; another one with the same weights",
                f"{first:.1f} s; {median(others):.1f} s",
            ),
        ),
        figures={
            "agents": count,
            "first_seconds": round(first, 2),
            "next_seconds_best": round(min(others), 2),
            "next_seconds_median": round(median(others), 2),
        },
    )
