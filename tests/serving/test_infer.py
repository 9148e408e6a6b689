"""The Open Inference Protocol over HTTP, on real models."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edge_sdk.errors import DataError
from edge_sdk.serving.infer import Tensor, array_of
from tests.runtime import bundles
from tests.serving import models

EXTREMES = {
    "BOOL": [True, False],
    "UINT8": [0, 255],
    "UINT16": [0, 2**16 - 1],
    "UINT32": [0, 2**32 - 1],
    "UINT64": [0, 2**64 - 1],
    "INT8": [-128, 127],
    "INT16": [-(2**15), 2**15 - 1],
    "INT32": [-(2**31), 2**31 - 1],
    "INT64": [-(2**63), 2**63 - 1],
    "FP16": [-65504.0, 0.5],
    "FP32": [0.10000000149011612, -1.5],
    "FP64": [1e308, -5e-324],
    "BYTES": ["", 'Zürich\0 "x"\n😀'],
}


@pytest.mark.parametrize("datatype", EXTREMES)
def test_every_datatype_goes_in_and_out_unchanged(api, put, datatype):
    dtypes = {"BOOL": "bool", "BYTES": "string", "FP16": "float16", "FP32": "float32",
              "FP64": "float64"}  # fmt: skip
    put("echo", models.echo, dtypes.get(datatype, datatype.lower()))
    response = api.infer("echo", EXTREMES[datatype], datatype, [1, 2])
    assert response.status == 200, response.body
    [output] = response.json["outputs"]
    assert output == {
        "name": "y",
        "datatype": datatype,
        "shape": [1, 2],
        "data": EXTREMES[datatype],
    }
    described = api.get("/v2/models/echo").json
    assert described["inputs"] == [{"name": "x", "datatype": datatype, "shape": [-1, -1]}]


def test_data_may_be_nested_or_flat(api, put):
    put("linear", bundles.linear)
    flat = api.infer("linear", [1, 2, 3, 4], shape=[2, 2]).json["outputs"]
    nested = api.infer("linear", [[1, 2], [3, 4]], shape=[2, 2]).json["outputs"]
    expected = (np.array([[1, 2], [3, 4]]) @ np.arange(6).reshape(2, 3)).reshape(-1)
    assert flat == nested
    assert flat[0]["data"] == expected.tolist()
    assert flat[0]["shape"] == [2, 3]


def test_the_id_and_the_version_come_back(api, put):
    put("double", models.times, 2, "1.2.3")
    inputs = [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]
    for path in ("/v2/models/double/infer", "/v2/models/double/versions/1.2.3/infer"):
        response = api.post(path, {"id": "42", "inputs": inputs, "parameters": {"any": 1}})
        assert response.json["id"] == "42"
        assert (response.json["model_name"], response.json["model_version"]) == ("double", "1.2.3")
    assert api.post("/v2/models/double/versions/9/infer", {"inputs": inputs}).status == 404


def test_only_the_outputs_that_are_asked_for_come(api, put):
    put("counter", bundles.counter)
    inputs = [{"name": "x", "shape": [1], "datatype": "FP32", "data": [3]}]
    path = "/v2/models/counter/infer"
    both = api.post(path, {"inputs": inputs}).json["outputs"]
    assert [output["name"] for output in both] == ["y", "sum"]
    [one] = api.post(path, {"inputs": inputs, "outputs": [{"name": "sum"}]}).json["outputs"]
    assert (one["name"], one["data"]) == ("sum", [3.0])
    response = api.post(path, {"inputs": inputs, "outputs": [{"name": "z"}]})
    assert response.status == 400
    assert "no such output; there are: y, sum" in response.error


def test_a_recurrent_models_state_can_be_given_back(api, put):
    put("counter", bundles.counter)
    tensors = [{"name": name, "shape": [1], "datatype": "FP32", "data": [3]}
               for name in ("x", "total")]  # fmt: skip
    outputs = api.post("/v2/models/counter/infer", {"inputs": tensors}).json["outputs"]
    assert [output["data"] for output in outputs] == [[12.0], [6.0]]


BAD = {
    "not JSON": (b"{", "is no inference request"),
    "not UTF-8": (b'{"inputs": "\xff"}', "is no inference request"),
    "no object": (b"[]", "Expected `object`, got `array`"),
    "no inputs": ({}, "missing required field `inputs`"),
    "no data": (
        {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32"}]},
        "missing required field `data` - at `$.inputs[0]`",
    ),
    "deep": (b'{"inputs": ' + b"[" * 100_000, "is no inference request"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_body_that_is_no_request_is_refused(api, put, what):
    body, message = BAD[what]
    put("double", models.times, 2)
    response = api.post("/v2/models/double/infer", body)
    assert response.status == 400
    assert message in response.error


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        ({"datatype": "FP8"}, "unknown datatype 'FP8'"),
        ({"datatype": "INT64"}, "expected float32 [n], given int64 [2]"),
        ({"shape": [3]}, "shape [3] has 3 elements, data has 2"),
        ({"shape": [10**18, 10**18]}, "elements, data has 2"),
        ({"shape": [0, 2**62, 2**62], "data": []}, "array is too big"),
        ({"shape": [2] + [1] * 99}, "dimension"),
        ({"shape": [-2]}, "Expected `int` >= 0"),
        ({"shape": [2, 1]}, "expected float32 [n], given float32 [2, 1]"),
        ({"data": [1, [2]]}, "input 'x'"),
        ({"data": [1, None]}, "input 'x'"),
        ({"data": [1, "2"]}, "input 'x'"),
        ({"data": {"a": 1}}, "input 'x'"),
        ({"data": [1, 1e300]}, "values do not fit"),
        ({"data": [True, False]}, "values do not fit"),
        ({"datatype": "BYTES"}, "BYTES are sent as strings"),
        ({"datatype": "UINT8", "data": [1, 256]}, "values do not fit"),
        ({"datatype": "UINT8", "data": [1, -1]}, "values do not fit"),
        ({"datatype": "INT32", "data": [1, 0.5]}, "values do not fit"),
        ({"datatype": "INT64", "data": [1, 2**64]}, "input 'x'"),
        ({"datatype": "BOOL", "data": [1, 0]}, "values do not fit"),
        ({"name": "z"}, "no input of this name; expected x: float32 [n]"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused(api, put, tensor, message):
    served = put("double", models.times, 2)
    good = {"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2]}
    response = api.post("/v2/models/double/infer", {"inputs": [{**good, **tensor}]})
    assert response.status == 400
    assert message in response.error
    assert served.figures().requests == 0  # the caller was wrong, not the model


def test_an_input_that_comes_twice_is_refused(api, put):
    put("double", models.times, 2)
    tensor = {"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}
    response = api.post("/v2/models/double/infer", {"inputs": [tensor, tensor]})
    assert (response.status, response.error) == (400, "inputs: an input comes twice")


def test_an_engines_failure_counts_against_the_model(api, put):
    served = put("lookup", models.lookup)
    response = api.infer("lookup", [9], "INT64")
    assert response.status == 500
    assert "ONNX Runtime failed" in response.error
    assert api.infer("lookup", [3], "INT64").json["outputs"][0]["data"] == [3.0]
    assert (served.figures().requests, served.figures().errors) == (2, 1)


def test_nan_is_not_sent_and_counts_against_the_model(api, put):
    served = put("log", models.logarithm)
    response = api.infer("log", [1, -1, 0])
    assert response.status == 500
    assert response.error == "output 'y': 2 of 3 values are NaN or infinite"
    assert (served.figures().requests, served.figures().errors) == (1, 1)


def test_a_body_larger_than_the_limit_is_not_read(router, put, monkeypatch):
    from edge_sdk.serving import server
    from edge_sdk.serving.app import app
    from tests.serving.conftest import Api

    monkeypatch.setattr("edge_sdk.serving.app.app", lambda router: app(router, body_limit=1000))
    put("double", models.times, 2)
    running = server.serve(router)
    try:
        api = Api(router, running)
        assert api.infer("double", [1] * 10).status == 200
        response = api.infer("double", [1] * 1000)
        assert response.status == 413
        assert "at most 1000 bytes" in response.error
        connection = api.open()
        chunks = iter([b"x" * 600] * 2)
        connection.request("POST", "/v2/models/double/infer", chunks, encode_chunked=True,
                           headers={"Transfer-Encoding": "chunked"})  # fmt: skip
        assert connection.getresponse().status == 413
        connection.close()
    finally:
        running.stop()


def test_a_call_beyond_the_memory_limit_is_too_large(api, tmp_path, router):
    from tests.serving.conftest import load

    bundle = bundles.linear(tmp_path / "b", memory=bundles.plan(2**20, batch=1))
    router.swap("linear", load(bundle, memory_limit=80 * 2**20))
    assert api.infer("linear", [1, 2], shape=[1, 2]).status == 200
    response = api.infer("linear", [1] * 128, shape=[64, 2])
    assert response.status == 413
    assert "predicted not to fit the memory limit" in response.error


def test_texts_of_uneven_rows_are_refused():
    with pytest.raises(DataError, match="BYTES are sent as strings"):
        array_of(Tensor("x", [3], "BYTES", ["a", ["b", "c"]]))


def test_large_tensors_are_exact(api, put):
    put("echo", models.echo, "float32")
    values = np.random.default_rng(0).normal(size=(100, 100)).astype(np.float32)
    [output] = api.infer("echo", values.tolist(), shape=[100, 100]).json["outputs"]
    assert (np.array(output["data"], np.float32).reshape(100, 100) == values).all()


def test_a_response_is_json_by_type(api, put):
    put("double", models.times, 2)
    response = api.infer("double", [1])
    assert response.headers["content-type"] == "application/json"
    assert json.loads(response.body)["outputs"][0]["data"] == [2.0]
