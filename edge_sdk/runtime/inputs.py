"""Checking a call's inputs against the graph's signature, before an engine sees them.

Pure. What is accepted:

* names: every required input, no other name;
* dtypes: the graph's, or one of the same kind that widens without loss
  (``int32`` for ``int64``, ``float16`` for ``float32``). Python numbers and lists
  have no dtype of their own and take the graph's where their values fit;
* shapes: the graph's rank and fixed dimensions; a named dimension has one value in
  the whole call (``?`` and the like, which exporters write for "unknown", name nothing);
* NaN: refused, unless ``nan="allow"``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge_sdk.bundle.record import TensorSpec
from edge_sdk.errors import DataError

Array = NDArray[np.generic]
NanPolicy = Literal["error", "allow"]


def check_inputs(
    specs: Sequence[TensorSpec], given: Mapping[str, Any], nan: NanPolicy = "error"
) -> dict[str, Array]:
    """Returns the arrays to feed, or says what was expected and what was given.

    Args:
        specs: The signature; inputs with ``required=False`` may be absent.
        given: Input name -> array, Python number or nested list.
        nan: What to do about NaN in float inputs.

    Returns:
        Input name -> array, in the signature's order. Arrays that already fit are not copied.

    Raises:
        DataError: A name, dtype, shape or value does not fit.
    """
    _check_names(specs, given)
    feeds: dict[str, Array] = {}
    bound: dict[str, tuple[int, str]] = {}
    for spec in specs:
        if spec.name not in given:
            continue
        array = _as_dtype(spec, given[spec.name])
        _check_shape(spec, array, bound)
        if nan == "error" and array.dtype.kind == "f":
            _check_nan(spec, array)
        feeds[spec.name] = array
    return feeds


def dimensions(specs: Sequence[TensorSpec], feeds: Mapping[str, Array]) -> dict[str, int]:
    """The value that each named dimension has in checked feeds."""
    return {
        symbol: size
        for spec in specs
        if spec.shape is not None and spec.name in feeds
        for symbol, size in zip(spec.shape, feeds[spec.name].shape, strict=True)
        if isinstance(symbol, str) and is_name(symbol)
    }


def is_name(symbol: str) -> bool:
    """Whether a symbolic dimension is named; ``?`` and the like stand for "unknown"."""
    return any(char.isalnum() for char in symbol)


def signature(spec: TensorSpec) -> str:
    """A tensor's dtype and shape for people: ``float32 [batch, 3, 224, 224]``."""
    if spec.shape is None:
        return spec.dtype
    return f"{spec.dtype} [{', '.join(map(str, spec.shape))}]"


def _check_names(specs: Sequence[TensorSpec], given: Mapping[str, Any]) -> None:
    if not isinstance(given, Mapping):
        raise DataError(
            f"inputs are a mapping from name to array, given {type(given).__name__}",
            remedy=f"expected {_listed(specs)}",
        )
    names = [spec.name for spec in specs]
    for name in given:
        if name not in names:
            from difflib import get_close_matches

            close = get_close_matches(name, names, n=1)
            raise DataError(
                f"the model has no input of this name; expected {_listed(specs)}",
                where=f"input {name!r}",
                remedy=f"did you mean {close[0]!r}?" if close else None,
            )
    for spec in specs:
        if spec.required and spec.name not in given:
            raise DataError(
                f"missing; given {', '.join(given) or 'nothing'}, expected {_listed(specs)}",
                where=f"input {spec.name!r}",
            )


def _listed(specs: Sequence[TensorSpec]) -> str:
    return "; ".join(f"{spec.name}: {signature(spec)}" for spec in specs) or "none"


def _as_dtype(spec: TensorSpec, value: Any) -> Array:
    if not isinstance(value, np.ndarray | np.generic):
        return from_python(spec, value)
    array = np.asarray(value)
    wanted = _numpy_dtype(spec.dtype)
    if wanted is None or array.dtype == wanted:
        return array
    if wanted.kind == "O" and array.dtype.kind in "US":
        return array
    if _kind(array.dtype) == _kind(wanted) and np.can_cast(array.dtype, wanted, "safe"):
        return array.astype(wanted)
    raise _mismatch(spec, array, f"convert it: {spec.name}.astype({spec.dtype!r})")


def from_python(spec: TensorSpec, value: Any) -> Array:
    """An array of the signature's dtype, of a Python number or nested list whose values fit.

    Raises:
        DataError: They do not, or this is no array.
    """
    wanted = _numpy_dtype(spec.dtype)
    try:
        array = np.asarray(value)
        if wanted is None:
            return array
        if array.size == 0 or (wanted.kind == "O" and array.dtype.kind in "US"):
            return array.astype(wanted)
        exact: Array = array
        if wanted.kind in "iu" and array.dtype.kind == "f":
            # Of whole numbers beyond 63 bits beside others numpy makes floats.
            exact = np.array(value, dtype=object)
        with np.errstate(over="ignore"):
            cast = exact.astype(wanted)
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(
            f"expected {signature(spec)}, given a value that is no such array: {error}",
            where=f"input {spec.name!r}",
        ) from error
    if wanted.kind == array.dtype.kind == "f":
        fits = np.array_equal(np.isfinite(cast), np.isfinite(array))
    else:
        booleans = (wanted.kind == "b") + (array.dtype.kind == "b")
        fits = booleans != 1 and np.array_equal(cast, exact)
    if not fits:
        raise _mismatch(spec, array, "the values do not fit the input's dtype")
    return cast


def _check_shape(spec: TensorSpec, array: Array, bound: dict[str, tuple[int, str]]) -> None:
    if spec.shape is None:
        return
    if len(spec.shape) != array.ndim:
        one_more = array.ndim == len(spec.shape) + 1
        raise _mismatch(
            spec, array, "run the samples of a list one by one, or stacked" if one_more else None
        )
    for symbol, size in zip(spec.shape, array.shape, strict=True):
        if isinstance(symbol, int):
            if symbol != size:
                raise _mismatch(spec, array)
            continue
        if not is_name(symbol):
            continue
        first, owner = bound.setdefault(symbol, (size, spec.name))
        if first != size:
            raise _mismatch(spec, array, f"{symbol!r} is {first} in {owner!r} and {size} here")


def _check_nan(spec: TensorSpec, array: Array) -> None:
    # max() propagates NaN and, unlike isnan(), allocates nothing.
    if array.size == 0 or not np.isnan(array.max()):
        return
    count = int(np.isnan(array).sum())
    raise DataError(
        f"{count} of {array.size} values are NaN",
        where=f"input {spec.name!r}",
        remedy='clean the data, or load the model with nan="allow"',
    )


def _mismatch(spec: TensorSpec, array: Array, remedy: str | None = None) -> DataError:
    given = f"{array.dtype} [{', '.join(map(str, array.shape))}]"
    return DataError(
        f"expected {signature(spec)}, given {given}", where=f"input {spec.name!r}", remedy=remedy
    )


def _numpy_dtype(name: str) -> np.dtype[Any] | None:
    """The numpy dtype of that name; ``None`` where numpy has none and the engine must judge."""
    if name == "string":
        return np.dtype(object)
    try:
        return np.dtype(name)
    except TypeError:
        return None


def _kind(dtype: np.dtype[Any]) -> str:
    return "i" if dtype.kind in "iu" else dtype.kind
