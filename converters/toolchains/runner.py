"""Runs inside a toolchain's environment: the other end of :mod:`converters.toolchains.process`.

::

    python -I runner.py call SCRIPT TOOL     one request on stdin, answers on stdout
    python -I runner.py pip install …        pip, under the same hold

The standard library only, and no Python newer than the oldest toolchain's. The request is
the first line of stdin. What follows it is nothing: stdin is the hold of our caller, and
when it closes, the caller is gone and this whole process group goes too. On stdout there
are lines of JSON, each with ``schema`` and either ``progress`` or ``result``; whatever a
library prints goes to stderr.
"""

from __future__ import annotations

import importlib.util
import json
import os
import runpy
import signal
import sys
import threading
from typing import Any

SCHEMA = "org.edge-sdk.toolchain-call/1"


def main() -> None:
    """Does what the command line says."""
    mode, *words = sys.argv[1:]
    line = _read_line()
    threading.Thread(target=_hold, daemon=True).start()
    if mode == "pip":
        sys.argv = ["pip", *words]
        runpy.run_module("pip", run_name="__main__", alter_sys=True)
        return
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(**fields: Any) -> None:
        answers.write(json.dumps({"schema": SCHEMA, **fields}) + "\n")
        answers.flush()

    script, tool = words
    request = json.loads(line)
    if request["schema"] != SCHEMA:
        raise SystemExit(f"speaks {SCHEMA}, asked in {request['schema']}")
    result = _load(script, tool)(request["request"], lambda text: say(progress=text))
    say(result=result)


def _read_line() -> bytes:
    """The request. A plain read: a buffer would be locked when the interpreter ends."""
    found = bytearray()
    while not found.endswith(b"\n"):
        part = os.read(0, 1 << 16)
        if not part:
            break
        found += part
    return bytes(found)


def _hold() -> None:
    while os.read(0, 1):
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _load(script: str, tool: str) -> Any:
    spec = importlib.util.spec_from_file_location("toolchain_script", script)
    if spec is None or spec.loader is None or tool.startswith("_"):
        raise SystemExit(f"no tool {tool!r} in {script}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return getattr(module, tool)


if __name__ == "__main__":
    main()
