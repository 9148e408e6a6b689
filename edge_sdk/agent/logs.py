"""What an agent says on stderr: one JSON object per line, or text for people."""

from __future__ import annotations

import logging
import time
from typing import Any

import msgspec

from edge_sdk.agent.config import LogConfig


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON; ``extra={"fields": {…}}`` adds keys."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, Any] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}"
            f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def set_up(config: LogConfig) -> None:
    """Sends what is logged to stderr, in place of what was set up before."""
    handler = logging.StreamHandler()
    if config.format == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=config.level.upper(), handlers=[handler], force=True)
