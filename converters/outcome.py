"""What a search found, and what stood in the way of the candidates it did not judge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from converters.choose import Judged
from converters.recipes import SOURCE
from edge_sdk.bundle.measurements import Candidate
from edge_sdk.errors import EdgeSdkError

T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """What a search found.

    Attributes:
        chosen: The winner, or ``None`` if nothing holds the limits.
        reason: Why it won, or which limit failed by how much.
        rows: The table of all candidates, the chosen one first.
        remedy: What to do where something else than a limit stands in the way of all.
    """

    chosen: Judged | None
    reason: str
    rows: tuple[Candidate, ...]
    remedy: str | None = None


class Setbacks:
    """Candidates that could not be built, add nothing, or that the device does not take.

    Args:
        engine: Whose candidate it is where a name does not say.

    Attributes:
        rows: Of candidates that were not judged, for the table.
        refused: Name -> what the device's compiler has against it.
    """

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._errors: dict[str, EdgeSdkError] = {}
        self.rows: list[Candidate] = []
        self.refused: dict[str, str] = {}

    def attempt(self, name: str, make: Callable[..., T], *given: object) -> T | None:
        """What ``make`` returns, or ``None`` if it raises: then the table says why.

        Raises:
            OSError: A full disk, say, which is no fault of the candidate's.
        """
        try:
            return make(*given)
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - candidate edge: recorded in the report
            if isinstance(error, EdgeSdkError):
                self._errors[name] = error
            self.leave_out(name, "failed", _sentence(error))
            return None

    def leave_out(self, name: str, status: str, reason: str) -> None:
        """Records a candidate that is not judged."""
        engine = name.partition("@")[2] or self._engine
        self.rows.append(Candidate(name=name, status=status, reason=reason, engine=engine))

    def refuse(self, name: str, error: EdgeSdkError) -> None:
        """Records what the device's compiler has against a candidate."""
        self.refused[name] = _sentence(error)
        self._errors[name] = error

    def blocking(self, closest: str, *, runnable: bool) -> tuple[str, str | None]:
        """Why no candidate may ship, and what to do if that is not a matter of limits.

        Args:
            closest: Which limit the best candidate failed.
            runnable: Whether some candidate is for an engine of the profile.
        """
        if self.refused:
            *_, name = sorted(self.refused, key=lambda name: name != SOURCE.name)
            refusal = self._errors[name]
            return f"{name}: {str(refusal).splitlines()[0]}", refusal.remedy
        failed = next((row for row in self.rows if row.status == "failed"), None)
        if failed is None:
            return closest, None
        reason = f"{failed.name} failed: {failed.reason}"
        if runnable:
            return f"{closest}; {reason}", None
        error = self._errors.get(failed.name)
        if error is None or error.remedy is None:
            return reason, None
        return f"{failed.name} failed: {str(error).splitlines()[0]}", error.remedy


def row(candidate: Judged, status: str, reason: str) -> Candidate:
    """A judged candidate's line in the table."""
    told = Candidate(
        name=candidate.name,
        status=status,
        reason=reason,
        engine=candidate.built.recipe.engine,
        size_bytes=candidate.built.size_bytes,
        agreement=candidate.agreement,
        latency_ms=candidate.latency_ms,
        device=candidate.device,
    )
    speedup = round(candidate.speedup, 3)
    if candidate.measured:
        return msgspec.structs.replace(told, speedup=speedup)
    return msgspec.structs.replace(told, predicted_speedup=speedup)


def _sentence(error: Exception) -> str:
    """What happened in one line: where, what, and what to do about it."""
    if not isinstance(error, EdgeSdkError):
        return (str(error) or type(error).__name__).splitlines()[0]
    first, *rest = str(error).splitlines()
    remedy = next((line.strip() for line in rest if line.strip().startswith("remedy:")), "")
    return f"{first}; {remedy}" if remedy else first
