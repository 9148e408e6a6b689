"""One exception tree for the whole product.

::

    EdgeSdkError                what failed, where, and what to do about it
    ├── InputError              the user's input is wrong                      (exit 2)
    │   ├── ProfileError        a device profile: unknown name or wrong field
    │   ├── SourceError         a model that cannot be read or is not supported
    │   ├── DataError           calibration / evaluation data or model inputs
    │   ├── RecipeError         a conversion recipe or its options
    │   ├── ConfigError         a configuration file, address or option of agent or fleet
    │   ├── NotServedError      no such model or version is served here
    │   ├── NotKnownError       no such device or rollout in this fleet
    │   └── BundleError         a bundle or store that is not what it claims
    │       └── DigestError     bytes that do not match their digest
    └── WorkError               good input, but the work failed                (exit 1)
        ├── ConversionError     no variant met the limits
        ├── ToolchainError      a toolchain cannot be installed, or its program failed
        │   └── UnsupportedOperatorError   an engine cannot compute a node of the graph
        ├── EngineError         an inference engine refused or crashed
        │   └── MissingEngineError   the engine is not installed here
        ├── MemoryLimitError    the model is predicted not to fit
        ├── BusyError           too many requests wait already
        ├── TransferError       a registry or broker is not reached, refuses, or breaks off
        ├── AdmissionError      a bundle that may not be installed on this device
        └── FleetError          the fleet's server could not do what it was asked

The command line prints ``str(error)`` and exits with ``error.exit_code``.
"""

from __future__ import annotations

from typing import ClassVar


class EdgeSdkError(Exception):
    """Base of every error this product raises on purpose.

    Args:
        message: What is wrong, in one sentence.
        where: The file, node, blob or field it is wrong in.
        remedy: What the user can do about it, in one sentence.
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self, message: str, *, where: str | None = None, remedy: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}\n  remedy: {self.remedy}" if self.remedy else text


class InputError(EdgeSdkError):
    """What the user gave is wrong; nothing was changed."""

    exit_code = 2


class ProfileError(InputError):
    """A device profile is unknown, or one of its fields is wrong."""


class SourceError(InputError):
    """A source model cannot be read, or uses something that is not supported."""


class DataError(InputError):
    """Calibration data, evaluation data or a model input does not fit the model."""


class RecipeError(InputError):
    """A recipe names an unknown pass, or an option has a wrong value."""


class ConfigError(InputError):
    """A field of a configuration file, an address or a reference is wrong."""


class NotServedError(InputError):
    """A request names a model or version that is not served here."""


class NotKnownError(InputError):
    """The fleet has no such device or rollout."""


class BundleError(InputError):
    """A bundle or store is incomplete, malformed or unsafe."""


class DigestError(BundleError):
    """Stored bytes do not match the digest they are filed under."""


class WorkError(EdgeSdkError):
    """The input was good, but the work could not be done."""


class ConversionError(WorkError):
    """No candidate met the accuracy and memory limits, or the source cannot be converted."""


class UnsupportedOperatorError(ConversionError):
    """A node of the graph cannot be brought to an engine.

    Args:
        op: The operator.
        node: Name of the node, or of its first output.
        engine: The engine it was to be brought to.
        reason: What exactly stands in the way, as a clause: "its weight is not constant".
        remedy: What to do instead.
    """

    def __init__(self, op: str, node: str, *, engine: str, reason: str, remedy: str) -> None:
        super().__init__(
            f"{op} cannot be brought to {engine}: {reason}", where=f"node {node!r}", remedy=remedy
        )
        self.op = op
        self.node = node
        self.engine = engine
        self.reason = reason


class ToolchainError(WorkError):
    """A toolchain's environment cannot be built, or a program in it failed."""


class EngineError(WorkError):
    """An inference engine refused a graph or failed while running it."""


class MissingEngineError(EngineError):
    """The engine a variant needs is not installed on this machine."""


class MemoryLimitError(WorkError):
    """The predicted peak memory of a model exceeds the limit."""


class BusyError(WorkError):
    """A model has as many requests to answer as it takes at once; trying again later helps."""


class TransferError(WorkError):
    """A registry, server or broker was not reached, refused, or broke off.

    Args:
        message: What happened.
        where: The address.
        remedy: What to do.
        passing: Whether trying again later may help.
    """

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        remedy: str | None = None,
        passing: bool = True,
    ) -> None:
        super().__init__(message, where=where, remedy=remedy)
        self.passing = passing


class AdmissionError(WorkError):
    """The device's rules do not let this bundle be installed."""


class FleetError(WorkError):
    """The fleet's server refused or failed; the message is the server's."""
