"""Whatever is sent, the answer is a value or an error of the product's tree."""

from __future__ import annotations

import math
from contextlib import suppress

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.errors import DataError, EdgeSdkError
from edge_sdk.serving import infer, openai
from edge_sdk.serving.datatypes import NUMPY_NAMES

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=12,
)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()
DATA = st.lists(NUMBERS, max_size=6) | st.lists(st.lists(NUMBERS, max_size=3), max_size=3) | JSON


@given(st.binary(max_size=60))
@settings(deadline=None)
def test_bytes_are_a_request_or_refused(body):
    for read in (infer.read_request, openai.read_request):
        with suppress(DataError):
            read(body)


BASE = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
FIELDS = {*openai.NEUTRAL, *openai.ChatRequest.__struct_fields__}


@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), JSON, max_size=4))
@settings(deadline=None)
def test_any_field_is_read_or_refused(fields):
    try:
        request = openai.read_request(msgspec.json.encode(BASE | fields))
    except DataError:
        return
    assert isinstance(request.route[0], str)


@given(st.sampled_from([*NUMPY_NAMES, "FP8"]), DATA, st.lists(st.integers(0, 7), max_size=3))
@settings(deadline=None, max_examples=400)
def test_any_data_is_an_array_or_refused(datatype, data, shape):
    try:
        array = infer.array_of(infer.Tensor("x", shape, datatype, data))
    except DataError:
        return
    assert array.shape == tuple(shape)
    if datatype == "BYTES":
        assert all(isinstance(text, str) for text in array.reshape(-1))
        return
    assert array.dtype == np.dtype(NUMPY_NAMES[datatype])
    if array.dtype.kind in "iub":
        assert array.reshape(-1).tolist() == flat(data)
    else:
        assert np.isfinite(array).all() == all(math.isfinite(item) for item in flat(data))


@given(st.dictionaries(st.sampled_from(["seed", "top_k", "max_tokens"]), st.integers())
       | st.dictionaries(st.sampled_from(["temperature", "top_p", "min_p", "repetition_penalty"]),
                         st.floats(allow_nan=False, allow_infinity=False)))  # fmt: skip
@settings(deadline=None)
def test_any_setting_begins_an_answer_or_is_refused(shared_chat, fields):
    try:
        request = openai.read_request(msgspec.json.encode(BASE | fields))
        with openai.generate(shared_chat, request) as completion:
            next(completion)
    except EdgeSdkError:
        assert shared_chat.figures().errors == 0


def flat(data) -> list:
    if not isinstance(data, list):
        return [data]
    return [item for inner in data for item in flat(inner)]
