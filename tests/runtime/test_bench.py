from __future__ import annotations

import json
from itertools import pairwise

import msgspec
import numpy as np
import pytest

from edge_sdk.bundle import record as rec
from edge_sdk.bundle.reader import open_bundle
from edge_sdk.cli.bench_page import bars, render_html
from edge_sdk.cli.main import main
from edge_sdk.errors import InputError
from edge_sdk.runtime.bench import BenchReport, Request, bench, golden_calls
from tests.generation import tiny
from tests.runtime import onnx_bytes as ob
from tests.runtime.bundles import HERE, Builder, linear, onnx, spec

QUICK = 0.02


def doubler(path, rows: int = 64):
    """``y = x + x``, with two golden cases."""
    with Builder(path) as builder:
        x, y = spec("x", ["n"]), spec("y", ["n"])
        builder.graph([ob.node("Add", ["x", "x"], ["y"])], [x], [y])
        cases = tuple(
            rec.GoldenCase(
                graph="main",
                inputs={"x": builder.array(np.full(rows, value, np.float32))},
                outputs={"y": builder.array(np.full(rows, 2 * value, np.float32))},
                atol=0.1,
                rtol=0.0,
            )
            for value in (1.0, 2.0)
        )
        builder.variant(golden=cases)
    return path


def chain(path, nodes: int):
    """A source with the doubler's signature and much more to do."""
    names = ["x", *(f"h{i}" for i in range(nodes - 1)), "y"]
    steps = [ob.node("Erf", [a], [b]) for a, b in pairwise(names)]
    path.write_bytes(onnx(steps, [spec("x", ["n"])], [spec("y", ["n"])]))
    return path


def test_the_golden_inputs_are_run_where_none_are_given(tmp_path):
    report = bench(Request(doubler(tmp_path / "b"), HERE, threads=(1,), seconds=QUICK))
    assert report.inputs == "golden"
    assert report.bundle.latency.calls >= 5
    assert 0 < report.bundle.latency.p50_ms <= report.bundle.latency.p95_ms
    assert report.bundle.latency.p95_ms <= report.bundle.latency.p99_ms
    assert report.against is None and report.speedup is None


def test_the_speedup_is_the_other_models_time_over_the_variants(tmp_path):
    source = chain(tmp_path / "source.onnx", 200)
    bundle = doubler(tmp_path / "b", rows=1 << 14)
    report = bench(Request(bundle, HERE, source, threads=(1,), seconds=QUICK))
    assert report.against is not None
    assert report.against.latency.calls == report.bundle.latency.calls
    # 200 error functions against one addition: a reversed ratio would be far below 1.
    assert report.speedup > 2
    assert report.throughput[0].calls_per_second > report.throughput[0].against_calls_per_second


def test_memory_and_first_run_are_those_of_a_fresh_process(tmp_path):
    start = bench(Request(doubler(tmp_path / "b"), HERE, threads=(1,), seconds=QUICK)).bundle.start
    slack = 2**20  # the kernel keeps these counters per processor and adds them up later
    assert 0 < start.pss_bytes <= start.rss_bytes + slack
    assert start.rss_bytes <= start.peak_rss_bytes + slack
    assert start.load_ms > 0 and start.first_run_ms > 0
    # Less than this test process, which has loaded far more.
    assert start.peak_rss_bytes < 200 * 2**20


def test_throughput_has_a_line_per_number_of_threads(tmp_path):
    report = bench(Request(doubler(tmp_path / "b"), HERE, threads=(2, 1), seconds=QUICK))
    assert report.threads == 2
    assert [line.threads for line in report.throughput] == [1, 2]


def test_a_dialogue_model_is_given_tokens_only(tmp_path):
    """The rest of a golden case are the buffers that the runtime feeds."""
    path = tiny.bundle(tmp_path / "b", golden=True, adapters={"pirate": tiny.adapter(0)})
    [call] = golden_calls(open_bundle(path).variants[0])
    assert call.keys() == {"input_ids"}
    report = bench(Request(path, HERE, threads=(1,), seconds=QUICK))
    assert report.bundle.latency.calls >= 5


def test_a_variant_without_golden_inputs_asks_for_input(tmp_path):
    with pytest.raises(InputError, match="--input"):
        bench(Request(linear(tmp_path / "b"), HERE))


def test_given_inputs_replace_the_golden_ones(tmp_path, capsys):
    given = tmp_path / "x.npz"
    np.savez(given, x=np.ones((3, 2), np.float32))
    bundle = linear(tmp_path / "b")
    assert run(bundle, "--input", given, "--json") == 0
    report = msgspec.json.decode(capsys.readouterr().out, type=BenchReport)
    assert report.inputs == str(given)


def test_wrong_inputs_are_an_input_error(tmp_path, capsys):
    given = tmp_path / "x.npz"
    np.savez(given, z=np.ones((3, 2), np.float32))
    assert run(linear(tmp_path / "b"), "--input", given) == 2
    assert "no input of this name" in capsys.readouterr().err


def run(*arguments) -> int:
    options = ["--profile", HERE, "--threads", "1", "--seconds", str(QUICK)]
    return main(["bench", *options, *map(str, arguments)])


def test_json_is_one_object_with_a_schema(tmp_path, capsys):
    assert run(doubler(tmp_path / "b"), "--json") == 0
    assert json.loads(capsys.readouterr().out)["schema"] == "org.edge-sdk.bench/1"


def test_the_table_has_both_models(tmp_path, capsys):
    source = chain(tmp_path / "source.onnx", 3)
    assert run(doubler(tmp_path / "b"), "--against", source) == 0
    text = capsys.readouterr().out
    assert "bundle" in text and "against" in text and "speedup" in text


def test_a_missing_model_to_compare_with_is_named(tmp_path, capsys):
    assert run(doubler(tmp_path / "b"), "--against", tmp_path / "none.onnx") == 2
    assert "none.onnx" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["0", "two", "1,-1"])
def test_wrong_numbers_of_threads_are_refused(capsys, words):
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "b", f"--threads={words}"])
    assert "--threads" in capsys.readouterr().err


def test_the_page_is_self_contained_and_escapes_names(tmp_path):
    report = bench(Request(doubler(tmp_path / "b"), HERE, threads=(1,), seconds=QUICK))
    page = render_html(msgspec.structs.replace(report, name="<script>"))
    assert "<svg" in page and "http" not in page
    assert "<script>" not in page and "&lt;script&gt;" in page


def test_bars_are_as_long_as_their_values():
    lines = bars([("a", "bundle", 10.0), ("b", "against", 5.0)], "t").splitlines()
    lengths = [float(part.split('"')[0]) for part in "".join(lines).split('width="')[1:]]
    assert lengths[0] == pytest.approx(2 * lengths[1])


def test_the_page_is_written_whole(tmp_path, capsys):
    target = tmp_path / "bench.html"
    assert run(doubler(tmp_path / "b"), "--html", target) == 0
    assert target.read_text("utf-8").endswith("</html>\n")
