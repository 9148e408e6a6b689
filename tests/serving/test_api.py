"""What the local API says of itself and its models, and how it refuses."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading

import pytest

from edge_sdk import __version__
from edge_sdk.errors import ConfigError
from edge_sdk.serving.app import _Api
from edge_sdk.serving.router import Router
from edge_sdk.serving.served import MOST_USES
from edge_sdk.serving.server import listen, serve
from tests.runtime import bundles
from tests.serving import models
from tests.serving.conftest import Api, load, until


def test_a_server_without_models_is_live_and_ready(api):
    assert api.get("/v2/health/live").json == {"live": True}
    assert api.get("/v2/health/ready").json == {"ready": True}
    assert api.get("/v2").json == {"name": "edge-sdk", "version": __version__, "extensions": []}
    assert api.get("/v1/models").json == {"object": "list", "data": []}


def test_it_is_ready_when_all_that_is_expected_is_served(api, put):
    api.router.expect(["linear"])
    response = api.get("/v2/health/ready")
    assert (response.status, response.json) == (503, {"ready": False, "missing": ["linear"]})
    response = api.get("/v2/models/linear/ready")
    assert (response.status, response.json) == (503, {"name": "linear", "ready": False})
    assert api.get("/v2/health/live").status == 200
    put("linear", bundles.linear)
    assert api.get("/v2/health/ready").status == 200
    assert api.get("/v2/models/linear/ready").json == {"name": "linear", "ready": True}


def test_a_model_is_described(api, put):
    put("linear", bundles.linear)
    described = api.get("/v2/models/linear").json
    assert described == {
        "name": "linear",
        "versions": ["1.0.0"],
        "platform": "onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}],
    }
    assert api.get("/v2/models/linear/versions/1.0.0").json == described
    assert api.get("/v2/models/linear/versions/1.0.0/ready").status == 200


def test_both_versions_are_listed_during_a_trial(api, put, tmp_path):
    put("m", models.times, 1, "1.0.0")
    api.router.canary("m", load(models.times(tmp_path / "two", 2, "2.0.0")), 10)
    assert api.get("/v2/models/m").json["versions"] == ["1.0.0", "2.0.0"]
    assert api.get("/v2/models/m/versions/2.0.0").json["versions"] == ["2.0.0"]
    versions = [api.infer("m", [1]).json["model_version"] for _ in range(20)]
    assert versions.count("2.0.0") == 2


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/models/linear/infer", 405),
        ("POST", "/v2/health/live", 405),
        ("GET", "/v2/models/none", 404),
        ("GET", "/v2/models/none/ready", 404),
        ("POST", "/v2/models/none/infer", 404),
        ("GET", "/v2/models/linear/versions/9.9.9/ready", 404),
        ("GET", "/v2/models/..%2f..%2fetc", 404),
    ],
)
def test_every_refusal_is_json_and_says_why(api, put, method, path, status):
    put("linear", bundles.linear)
    response = api.send(method, path, b"{}" if method == "POST" else None)
    assert response.status == status
    assert isinstance(response.error, str)
    assert len(response.error) > 10


def test_refusals_under_v1_have_the_shape_of_openai(api):
    assert api.get("/v1/nothing").error == {
        "message": "/v1/nothing: Not Found",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }
    assert api.get("/v1/models/none").error["code"] == "model_not_found"


def test_a_model_with_too_many_requests_says_when_to_try_again(api, put):
    served = put("linear", bundles.linear)
    for _ in range(MOST_USES):
        served.hold()
    response = api.infer("linear", [1, 2], shape=[1, 2])
    assert response.status == 503
    assert response.headers["retry-after"] == "1"
    assert "64 requests to answer already" in response.error
    for _ in range(MOST_USES):
        served.let_go()
    assert api.infer("linear", [1, 2], shape=[1, 2]).status == 200


def test_an_error_that_nobody_foresaw_is_json_too(api, put, monkeypatch):
    async def fails(self, request):
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(_Api, "server", fails)
    running = serve(api.router)
    response = Api(api.router, running).get("/v2")
    running.stop()
    assert (response.status, response.error) == (500, "internal error: ZeroDivisionError")


def test_a_body_that_breaks_off_leaves_nothing(api, put, caplog):
    served = put("linear", bundles.linear)
    connection = api.open()
    connection.putrequest("POST", "/v2/models/linear/infer")
    connection.putheader("Content-Length", "1000")
    connection.endheaders(b"{")
    connection.close()
    assert api.infer("linear", [1, 2], shape=[1, 2]).status == 200
    assert served.figures().requests == 1
    assert not caplog.records


def test_a_connection_serves_many_requests(api, put):
    put("linear", bundles.linear)
    connection = api.open()
    for _ in range(3):
        connection.request("GET", "/v2/models/linear")
        response = connection.getresponse()
        assert response.status == 200
        response.read()
    connection.close()


def test_stopping_lets_requests_end_and_takes_no_more(router, put):
    served = put("linear", bundles.linear)
    running = serve(router)
    api = Api(router, running)
    entered, go_on = threading.Event(), threading.Event()
    served.executor.submit(lambda: (entered.set(), go_on.wait(30)))
    assert entered.wait(30)
    answers = []
    asking = threading.Thread(
        target=lambda: answers.append(api.infer("linear", [1, 2], shape=[1, 2]))
    )
    asking.start()
    until(lambda: served.uses)
    stopping = threading.Thread(target=running.stop)
    stopping.start()
    go_on.set()
    asking.join()
    stopping.join()
    assert answers[0].status == 200
    with pytest.raises(ConnectionError):
        api.get("/v2")


def test_an_address_that_is_taken_is_an_error(api):
    with pytest.raises(ConfigError, match="cannot listen there"):
        serve(Router(), port=api.running.port)


@pytest.mark.parametrize(("host", "port"), [("no.such.host.invalid", 0), ("127.0.0.1", 70000)])
def test_an_address_that_is_none_is_an_error(host, port):
    with pytest.raises(ConfigError, match="cannot listen there"):
        serve(Router(), host, port)


def test_it_listens_on_ipv6_too():
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        running = serve(Router(), "::1")
    except ConfigError:
        pytest.skip("no IPv6 here")
    assert Api(Router(), running).get("/v2/health/live").status == 200
    running.stop()


def test_a_server_without_models_loads_neither_numpy_nor_an_engine():
    program = """
import sys, urllib.request
from edge_sdk.serving.router import Router
from edge_sdk.serving.server import listen, serve
running = serve(Router())
for path in ("/v2/health/ready", "/v2", "/v1/models", "/metrics"):
    urllib.request.urlopen(f"http://127.0.0.1:{running.port}{path}").read()
running.stop()
print(sorted({"numpy", "onnxruntime", "tokenizers", "jinja2"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_answers_do_not_wait_for_acknowledgements():
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
