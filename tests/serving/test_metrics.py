from __future__ import annotations

import pytest

from edge_sdk.serving.metrics import render
from tests.serving import models
from tests.serving.conftest import load


def test_the_page_counts_requests(api, put):
    put("m", models.lookup)
    for index in (0, 1, 2, 9):
        api.infer("m", [index], "INT64")
    response = api.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = response.body.decode().splitlines()
    labels = '{model="m",version="1.0.0"}'
    assert f"edge_sdk_request_duration_seconds_count{labels} 3" in lines
    assert f"edge_sdk_request_errors_total{labels} 1" in lines
    assert f"edge_sdk_requests_in_progress{labels} 0" in lines


def test_prometheus_own_parser_reads_it(router, put, tmp_path):
    parser = pytest.importorskip("prometheus_client.parser")
    served = put("m", models.times, 1, "1.0.0")
    router.canary("m", load(models.times(tmp_path / "two", 2, "2.0.0"), 'odd "\\\n'), 50)
    for _ in range(200):
        with router.use("m") as one:
            one.run({"x": [1]})
    families = {f.name: f for f in parser.text_string_to_metric_families(render(router))}
    duration = families["edge_sdk_request_duration_seconds"]
    assert duration.type == "histogram"
    buckets = [
        (float(sample.labels["le"]), sample.value)
        for sample in duration.samples
        if sample.name.endswith("_bucket") and sample.labels["version"] == "1.0.0"
    ]
    assert buckets == sorted(buckets)
    assert [count for _, count in buckets] == sorted(count for _, count in buckets)
    assert buckets[-1] == (float("inf"), 100)
    [total] = [s.value for s in duration.samples
               if s.name.endswith("_sum") and s.labels["version"] == "1.0.0"]  # fmt: skip
    assert total == pytest.approx(served.health.totals().latency_ms / 1e3)
    info = {sample.labels["role"]: sample.labels for sample in
            families["edge_sdk_model_info"].samples}  # fmt: skip
    assert info["canary"]["digest"] == 'odd "\\\n'
    assert [sample.value > 0.25 for sample in families["edge_sdk_output_drift"].samples] == [True]
    assert families["process_resident_memory_bytes"].samples[0].value > 1e6
