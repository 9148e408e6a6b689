"""Writes the README's table of measurements from ``benchmarks/results``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.result import Result, read_all

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def with_table(text: str, results: Sequence[Result]) -> str:
    """The README with its table replaced."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table(results)}\n{END}{rest.split(END)[1]}"


def table(results: Sequence[Result]) -> str:
    """The table as Markdown, with a line that names the machines."""
    lines = ["| what | measured | command |", "|---|---|---|"]
    lines += [
        f"| {row.what} | {row.measured} | `{result.command}` |"
        for result in results
        for row in result.outcome.rows
    ]
    machines = {
        f"{r.machine.cpu} ({r.machine.cores} cores, onnxruntime {r.versions['onnxruntime']})"
        for r in results
    }
    return "\n".join([*lines, "", f"On {'; '.join(sorted(machines))}."])


def main() -> None:
    """Rewrites the README in place."""
    README.write_text(with_table(README.read_text("utf-8"), read_all()), "utf-8")


if __name__ == "__main__":
    main()
