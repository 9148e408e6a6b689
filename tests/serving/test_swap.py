"""Swaps while requests come in, over HTTP: nobody notices, and nothing is left behind."""

from __future__ import annotations

import json
import threading

from edge_sdk.runtime import process
from tests.serving import models
from tests.serving.conftest import Api, load, until


class Load:
    """Callers that send one request after the other, and check every answer."""

    def __init__(self, api: Api, callers: int) -> None:
        self.answered = [0] * callers
        self.problems: list[str] = []
        self.versions: set[str] = set()
        self._api = api
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._call, args=(index,)) for index in range(callers)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _call(self, index: int) -> None:
        tensor = {"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}
        body = json.dumps({"inputs": [tensor]})
        connection = self._api.open()
        while not self._stop.is_set():
            connection.request("POST", "/v2/models/m/infer", body)
            response = connection.getresponse()
            content = json.loads(response.read())
            if response.status != 200:
                self.problems.append(content["error"])
                continue
            version = content["model_version"]
            if content["outputs"][0]["data"] != [float(version[0])]:
                self.problems.append(f"{version} answered {content}")
            self.versions.add(version)
            self.answered[index] += 1
        connection.close()


def test_no_request_fails_while_versions_are_swapped(api, tmp_path):
    bundles = [
        models.times(tmp_path / f"{factor}", factor, f"{factor}.0.0") for factor in (1, 2, 3)
    ]
    api.router.swap("m", load(bundles[0]))
    old = []
    with Load(api, callers=4) as load_on_it:
        until(lambda: min(load_on_it.answered))
        for i in range(15):
            if i % 5 == 4:
                api.router.canary("m", load(bundles[2]), 50)
            elif i % 5 == 0:
                api.router.end_canary("m")
            else:
                old.append(api.router.swap("m", load(bundles[i % 2])))
            before = sum(load_on_it.answered)
            until(lambda before=before: sum(load_on_it.answered) > before + 8)
    assert not load_on_it.problems
    assert load_on_it.versions == {"1.0.0", "2.0.0", "3.0.0"}
    assert all(served.wait_closed(30) for served in old)


def test_fifty_swaps_leave_no_memory_behind(api, tmp_path):
    """Each version has 4 MiB of weights that the engine keeps on its heap."""
    bundles = [models.weighty(tmp_path / str(i), f"{i}.0.0") for i in (1, 2)]

    def swap(i: int) -> None:
        old = api.router.swap("m", load(bundles[i % 2]))
        response = api.infer("m", [[1] * 1024], shape=[1, 1024])
        assert response.json["outputs"][0]["data"][0] == 1024 * (1 + i % 2)
        assert old is None or old.wait_closed(30)

    for i in range(10):
        swap(i)
    before = process.rss()
    for i in range(50):
        swap(i)
    assert process.rss() - before < 8 * 2**20
