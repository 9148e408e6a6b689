"""Types of command-line values that more than one command takes."""

from __future__ import annotations

import math
from argparse import ArgumentTypeError

MOST_THREADS = 1024  # an engine really starts as many as it is told


def thread_count(text: str) -> int:
    """A number of threads.

    Raises:
        ArgumentTypeError: It is none, or more than any board has cores.
    """
    if not text.strip().isdecimal() or not 1 <= int(text) <= MOST_THREADS:
        raise ArgumentTypeError(f"{text!r} is no number from 1 to {MOST_THREADS}")
    return int(text)


def thread_counts(text: str) -> tuple[int, ...]:
    """Numbers of threads, separated by commas.

    Raises:
        ArgumentTypeError: One of them is none.
    """
    return tuple(map(thread_count, text.split(",")))


def positive(text: str) -> float:
    """A finite number above zero.

    Raises:
        ArgumentTypeError: It is none.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise ArgumentTypeError(f"{text!r} is no number above 0")
    return number
