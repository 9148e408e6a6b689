"""Which topics an MQTT filter stands for (MQTT 5.0, section 4.7)."""

from __future__ import annotations

from edge_sdk.errors import ConfigError


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a message on ``topic`` goes to who subscribed to ``topic_filter``.

    ``+`` stands for one level and ``#`` for all that follow, also for none; neither stands
    for a first level that begins with ``$``.
    """
    if topic_filter == topic:
        return True
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("+", "#"):
        return False
    for index, level in enumerate(wanted):
        if level == "#":
            return True
        if index == len(levels) or level not in ("+", levels[index]):
            return False
    return len(wanted) == len(levels)


def check(topic_filter: str) -> str:
    """Gives a valid filter back.

    Raises:
        ConfigError: ``+`` or ``#`` stand beside something else, ``#`` is not the last level,
            or it is empty, too long or holds a NUL.
    """
    *front, last = topic_filter.split("/")
    wrong = any("#" in level for level in front) or any(
        len(level) > 1 and not {"+", "#"}.isdisjoint(level) for level in (*front, last)
    )
    if wrong or not topic_filter or "\0" in topic_filter or len(topic_filter.encode()) > 65535:
        raise ConfigError(f"{topic_filter[:200]!r} is no filter of MQTT topics")
    return topic_filter
