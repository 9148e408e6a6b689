"""The Open Inference Protocol's JSON: requests to arrays, arrays to responses.

https://github.com/kserve/open-inference-protocol, version 2, over REST. Imported with the
first request, because it needs numpy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np

from edge_sdk.bundle.record import TensorSpec
from edge_sdk.errors import DataError, EngineError
from edge_sdk.runtime.inputs import Array, from_python
from edge_sdk.serving import drift
from edge_sdk.serving.datatypes import NUMPY_NAMES, datatype_of
from edge_sdk.serving.served import Served


class Tensor(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tensor as it is sent.

    Attributes:
        name: Of the input or output.
        shape: Its dimensions.
        datatype: ``BOOL``, ``UINT8`` … ``INT64``, ``FP16``, ``FP32``, ``FP64`` or ``BYTES``.
        data: Its elements in row-major order, flat or nested.
        parameters: Ignored.
    """

    name: str
    shape: Sequence[Annotated[int, msgspec.Meta(ge=0)]]
    datatype: str
    data: Any
    parameters: dict[str, Any] = {}


class Wanted(msgspec.Struct, frozen=True):
    """An output that is asked for."""

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(msgspec.Struct, frozen=True):
    """A request.

    Attributes:
        inputs: The model's inputs.
        id: Comes back with the response.
        outputs: The outputs that are asked for; all by default.
        parameters: Ignored.
    """

    inputs: list[Tensor]
    id: str = ""
    outputs: list[Wanted] | None = None
    parameters: dict[str, Any] = {}


class InferResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    """A response.

    Attributes:
        model_name: The model.
        model_version: The version that answered.
        outputs: Its outputs.
        id: The request's.
    """

    model_name: str
    model_version: str
    outputs: list[Tensor]
    id: str = ""


def answer(served: Served, name: str, body: bytes) -> bytes:
    """Answers one request.

    Args:
        served: The version that answers.
        name: The model's name.
        body: The request, JSON.

    Raises:
        DataError: It is no request, or does not fit the model.
        EngineError: The engine failed, or gave what JSON has no word for.
    """
    request = read_request(body)
    inputs = {tensor.name: array_of(tensor) for tensor in request.inputs}
    with served.counted():
        outputs = served.model.run(inputs)
        tensors = [tensor_of(key, outputs[key]) for key in _wanted(request, outputs)]
    served.outputs.add(drift.of_outputs(outputs))
    return msgspec.json.encode(InferResponse(name, served.version, tensors, request.id))


def read_request(body: bytes) -> InferRequest:
    """A request from its JSON.

    Raises:
        DataError: It is none.
    """
    try:
        request = msgspec.json.decode(body, type=InferRequest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(
            f"is no inference request: {error}",
            where="body",
            remedy='send {"inputs": [{"name": …, "shape": […], "datatype": …, "data": […]}]}',
        ) from error
    names = [tensor.name for tensor in request.inputs]
    if len(set(names)) < len(names):
        raise DataError("an input comes twice", where="inputs")
    return request


def array_of(tensor: Tensor) -> Array:
    """The array that a tensor of a request stands for.

    Raises:
        DataError: Its data do not fit its datatype or shape.
    """
    where = f"input {tensor.name!r}"
    dtype = NUMPY_NAMES.get(tensor.datatype)
    if dtype is None:
        raise DataError(
            f"unknown datatype {tensor.datatype!r}; there are {', '.join(NUMPY_NAMES)}",
            where=where,
        )
    if dtype == "string":
        array = _texts(tensor.data, where)
    else:
        array = from_python(TensorSpec(name=tensor.name, dtype=dtype, shape=None), tensor.data)
    if array.size != math.prod(tensor.shape):
        raise DataError(
            f"shape {list(tensor.shape)} has {math.prod(tensor.shape)} elements, "
            f"data has {array.size}",
            where=where,
        )
    try:
        return array.reshape(tensor.shape)
    except ValueError as error:  # nothing of something huge, or too many dimensions
        raise DataError(f"shape {list(tensor.shape)}: {error}", where=where) from error


def tensor_of(name: str, array: Array) -> Tensor:
    """An output as it is sent.

    Raises:
        EngineError: JSON has no word for its values.
    """
    datatype = datatype_of("string" if array.dtype.kind in "OSU" else array.dtype.name)
    if datatype is None:
        raise EngineError(f"{array.dtype} cannot be sent as JSON", where=f"output {name!r}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = array.size - int(np.isfinite(array).sum())
        raise EngineError(
            f"{bad} of {array.size} values are NaN or infinite", where=f"output {name!r}"
        )
    data = array.reshape(-1).tolist()
    if datatype == "BYTES":
        data = [text.decode("utf-8", "replace") if isinstance(text, bytes) else text
                for text in data]  # fmt: skip
    return Tensor(name, array.shape, datatype, data)


def _texts(data: Any, where: str) -> Array:
    """Strings, nested or flat, as an array of objects: numpy's own texts drop trailing NULs."""
    try:
        array = np.array(data, dtype=object)
    except ValueError as error:
        raise DataError(f"data is no array: {error}", where=where) from error
    if not all(isinstance(item, str) for item in array.reshape(-1)):
        raise DataError("BYTES are sent as strings", where=where)
    return array


def _wanted(request: InferRequest, outputs: Mapping[str, Array]) -> list[str]:
    if request.outputs is None:
        return list(outputs)
    names = [wanted.name for wanted in request.outputs]
    for name in names:
        if name not in outputs:
            raise DataError(
                f"the model has no such output; there are: {', '.join(outputs)}",
                where=f"output {name!r}",
            )
    return names
