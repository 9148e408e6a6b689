"""Packed weights in a file that sessions share; how it is made, trusted and thrown away."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import edge_sdk
from edge_sdk.bundle import record as rec
from edge_sdk.bundle.oci import Platform
from edge_sdk.bundle.writer import BundleWriter
from edge_sdk.runtime import process
from edge_sdk.runtime.engine import SessionOptions
from edge_sdk.runtime.engines import litert_shared
from edge_sdk.runtime.engines.litert import LiteRtEngine, quiet
from tests.runtime.bundles import DIGEST, HERE, spec

pytestmark = pytest.mark.skipif(
    not litert_shared.is_available(), reason="this LiteRT knows no files of packed weights"
)
WIDTHS = (256, 1024, 1024, 256)
X = {"x": np.random.default_rng(0).standard_normal((3, 256)).astype(np.float32)}
MIB = 1 << 20


def bundle(folder: Path, option: str = "always", seed: int = 0, *, golden: bool = True) -> Path:
    """A network of 6 MiB in three parts, over floats."""
    from tests.runtime.tflite_bytes import dense

    data = dense(WIDTHS, seed=seed)
    file = folder / "network.tflite"
    file.write_bytes(data)
    expected = LiteRtEngine().open(file, SessionOptions()).run(X)["y"]
    path = folder / f"{option}-{seed}-{golden}.bundle"
    with BundleWriter(path) as writer:
        put = writer.blobs.put

        def array(values: np.ndarray) -> rec.ArrayRef:
            blob = put([values.tobytes()])
            return rec.ArrayRef(blob=blob, dtype="float32", shape=values.shape)

        cuts = [0, 4 * MIB, 5 * MIB, len(data)]
        case = rec.GoldenCase(
            graph="main", inputs={"x": array(X["x"])}, outputs={"y": array(expected)},
            atol=1e-3, rtol=1e-3,
        )  # fmt: skip
        graph = rec.Graph(
            name="main",
            format="tflite",
            parts=tuple(put([data[a:b]]) for a, b in pairwise(cuts)),
            inputs=(spec("x", ("batch", 256)),),
            outputs=(spec("y", ("batch", 256)),),
        )
        record = rec.VariantRecord(
            name="network", version="1.0.0", profile=HERE, task="generic", kind="generic",
            graphs=(graph,),
            engine=rec.Engine(name="litert", options={"weight_cache": option}),
            recipe=rec.Recipe(name="fp32@litert", engine="litert"),
            memory=rec.MemoryPlan(weights_mapped=0, weights_private=0, activations=0, engine=0),
            agreement=rec.Agreement(samples=1, cosine=1, max_error=0, drop=0, drop_of="none"),
            provenance=rec.Provenance(
                source_name="network", source_digest=DIGEST, data_digest=None, tools={}
            ),
            golden=(case,) if golden else (),
        )  # fmt: skip
        writer.add_variant(record, Platform(architecture="amd64", os="linux"))
        writer.finish()
    return path


def weights_of(path: Path) -> list[Path]:
    return sorted((path / "prepared").glob("*/*.weights"))


def test_sessions_map_one_file_and_compute_what_the_interpreter_does(tmp_path):
    path = bundle(tmp_path)
    plain = LiteRtEngine().open(tmp_path / "network.tflite", SessionOptions()).run(X)["y"]
    with edge_sdk.load(path, HERE) as first, edge_sdk.load(path, HERE) as second:
        [weights] = weights_of(path)
        assert len(process.mappings(weights)) == 2
        assert first.notes == second.notes == ()
        for model in (first, second):
            assert np.array_equal(model.run(X)["y"], plain)
            assert model.run({"x": X["x"][:1]})["y"].shape == (1, 256)
            assert np.array_equal(model.run(X)["y"], plain)


def test_second_session_packs_nothing(tmp_path):
    path = bundle(tmp_path)
    with edge_sdk.load(path, HERE) as first:
        first.run(X)
        before = process.anonymous()
        with edge_sdk.load(path, HERE) as second:
            second.run(X)
            assert process.anonymous() - before < 2 * MIB  # of 6 MiB packed


def test_file_stays_as_it_was_however_often_it_is_used(tmp_path):
    path = bundle(tmp_path)
    edge_sdk.load(path, HERE).close()
    [weights] = weights_of(path)
    before = weights.stat()
    with edge_sdk.load(path, HERE) as model:
        model.run(X)
    assert weights.stat()[:9] == before[:9]


def test_damaged_file_is_a_note_and_made_again_by_the_next_load(tmp_path):
    path = bundle(tmp_path)
    edge_sdk.load(path, HERE).close()
    [weights] = weights_of(path)
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    with edge_sdk.load(path, HERE) as model:
        assert "packs its weights for itself" in model.notes[0]
        assert model.self_test().cases == 1
    with edge_sdk.load(path, HERE) as model:
        assert model.notes == ()
    assert weights_of(path) == [weights]


def test_another_version_of_the_library_makes_its_own_and_drops_the_other(tmp_path, monkeypatch):
    path = bundle(tmp_path)
    edge_sdk.load(path, HERE).close()
    [old] = weights_of(path)
    monkeypatch.setattr(LiteRtEngine, "version", lambda self: "99.0")
    edge_sdk.load(path, HERE).close()
    [new] = weights_of(path)
    assert new.name != old.name


def test_without_golden_case_or_for_a_small_file_each_session_packs(tmp_path):
    with edge_sdk.load(bundle(tmp_path, golden=False), HERE) as model:
        assert "no golden case" in model.notes[0]
    small = bundle(tmp_path, "auto")
    with edge_sdk.load(small, HERE) as model:
        assert model.notes == ()
        assert not weights_of(small)


def test_wrong_result_over_packed_weights_is_a_note_and_leaves_no_file(tmp_path, monkeypatch):
    path = bundle(tmp_path)
    run = litert_shared.SharedSession.run
    monkeypatch.setattr(
        litert_shared.SharedSession, "run", lambda self, feeds: {"y": run(self, feeds)["y"] + 1}
    )
    with edge_sdk.load(path, HERE) as model:
        assert "packs its weights for itself" in model.notes[0]
        assert model.self_test().cases == 1
    assert not weights_of(path)


def test_cpu_that_the_libraries_do_not_run_on_is_a_note_and_not_tried_again(tmp_path, monkeypatch):
    from edge_sdk.runtime.prepared import weight_process

    path, dying = bundle(tmp_path), tmp_path / "python"
    count = tmp_path / "count"
    dying.write_text(f"#!/bin/sh\necho >> {count}\nkill -ILL $$\n")
    dying.chmod(0o755)
    monkeypatch.setattr(weight_process.sys, "executable", str(dying))
    for _ in range(2):
        with edge_sdk.load(path, HERE) as model:
            assert "do not run on this CPU: SIGILL" in model.notes[0]
            assert model.self_test().cases == 1
    assert count.read_text() == "\n"
    assert not weights_of(path)


def test_packing_that_was_killed_is_tried_again(tmp_path, monkeypatch):
    from edge_sdk.runtime.prepared import weight_process

    path, dying = bundle(tmp_path), tmp_path / "python"
    dying.write_text("#!/bin/sh\nkill -KILL $$\n")
    dying.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setattr(weight_process.sys, "executable", str(dying))
        with edge_sdk.load(path, HERE) as model:
            assert "SIGKILL" in model.notes[0]
    with edge_sdk.load(path, HERE) as model:
        assert model.notes == ()
    assert weights_of(path)


def test_library_does_not_write_to_stderr_while_others_may(tmp_path, capfd):
    path = bundle(tmp_path)
    with edge_sdk.load(path, HERE) as model:
        model.run(X)
    assert capfd.readouterr().err == ""
    with quiet():
        os.write(2, b"INFO: [some.cc:1] of the library\nof another thread\n")
    assert capfd.readouterr().err == "of another thread\n"


def test_two_processes_map_the_same_file(tmp_path):
    path = bundle(tmp_path)
    script = (
        "import sys, edge_sdk; from tests.runtime import test_litert_weight_cache as t;"
        "model = edge_sdk.load(sys.argv[1], t.HERE);"
        "assert not model.notes, model.notes; print(model.run(t.X)['y'].sum())"
    )
    command = [sys.executable, "-c", script, str(path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [process.communicate(timeout=60)[0] for process in running]
    assert answers[0] == answers[1] != ""
    assert len(weights_of(path)) == 1
