"""An agent that kills itself at a step: ``python -m tests.agent.deadly STEP MOMENT CONFIG``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from edge_sdk.agent.config import read_config
from edge_sdk.agent.plan import Step
from edge_sdk.agent.process import run


def main() -> None:
    name, moment, config = sys.argv[1:]

    def observe(step: Step, now: str) -> None:
        if (type(step).__name__, now) == (name, moment):
            os.kill(os.getpid(), signal.SIGKILL)

    run(read_config(Path(config), {}), observe)


if __name__ == "__main__":
    main()
