"""Another process of a user: ``python -m tests.toolchains.caller TOOL REQUEST``."""

from __future__ import annotations

import json
import sys

from converters.toolchains import Environment
from tests.toolchains.conftest import TINY


def main() -> None:
    """Calls a tool of the tiny toolchain; progress and the result are lines of stdout."""
    tool, request = sys.argv[1:]

    def say(line: str) -> None:
        print(line, flush=True)

    say(json.dumps(Environment(TINY).call(tool, json.loads(request), say)))


if __name__ == "__main__":
    main()
