"""Prepared weights: the same bits, never the wrong ones, and shared."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge_sdk.bundle.reader import Variant, open_bundle
from edge_sdk.bundle.record import Blob
from edge_sdk.bundle.store import Store
from edge_sdk.errors import DigestError
from edge_sdk.runtime import sessions
from edge_sdk.runtime.engine import Session, SessionOptions
from edge_sdk.runtime.engines.onnx import OnnxEngine
from edge_sdk.runtime.prepared import Verify, artefact, packing, stamps
from edge_sdk.runtime.prepared.artefact import Index, Place, read_index
from edge_sdk.runtime.prepared.prepare import record
from edge_sdk.runtime.prepared.stamps import Stamp
from tests.runtime.small_decoder import decoder, logits

pytestmark = pytest.mark.skipif(
    OnnxEngine().version() not in packing.TESTED,
    reason=f"weights are prepared for onnxruntime {' and '.join(packing.TESTED)} only",
)


@pytest.fixture
def variant(tmp_path) -> Variant:
    return open_bundle(decoder(tmp_path / "bundle")).variants[0]


def opened(variant: Variant, *, prepare: bool = True, verify: Verify = False) -> Session:
    return sessions.open_graph(variant, "main", 1, True, prepare=prepare, verify=verify)


def plain(variant: Variant) -> np.ndarray:
    session = opened(variant, prepare=False)
    assert session.notes == ()
    return logits(session, variant)


def place_of(variant: Variant) -> Place:
    graph = variant.record.graphs[0]
    return Place.of(variant, graph, packing.layout_id(SessionOptions()))


def index_of(variant: Variant) -> Index:
    index = read_index(place_of(variant).index_path)
    assert index is not None
    return index


def prepared(variant: Variant) -> Index:
    assert "prepared" in opened(variant).notes[0]
    return index_of(variant)


def flip(path: Path, at: int = 0) -> None:
    """Damages a file in place, as bad storage would."""
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x5A]))


def raw_weights(variant: Variant) -> list[Path]:
    return [variant.blob_path(digest) for digest in index_of(variant).unread]


def expect_plain(variant: Variant, why: str, *, verify: bool = False) -> None:
    """The session is a plain one that says why, computes the right thing, and left nothing."""
    session = opened(variant, verify=verify)
    assert "loaded plainly" in session.notes[0]
    assert why in session.notes[0]
    np.testing.assert_array_equal(logits(session, variant), plain(variant))
    assert not place_of(variant).index_path.exists()


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"block": 128, "hidden": 256},
        {"block": 128, "hidden": 160},  # the last block is not full
        {"zero_points": True},
        {"bits": 8},
        {"bits": 8, "zero_points": True},
        {"bias": True},
    ],
    ids=str,
)
def test_every_form_of_weights_gives_the_same_bits(tmp_path, form):
    variant = open_bundle(decoder(tmp_path / "bundle", **form)).variants[0]
    expected = plain(variant)
    for _ in range(2):
        session = opened(variant)
        np.testing.assert_array_equal(logits(session, variant), expected)
    assert session.notes == ()
    assert len(index_of(variant).weights) == 3


def test_first_use_prepares_and_says_so_and_the_next_finds_it(variant):
    [note] = opened(variant).notes
    assert "prepared 3 weights" in note
    files = {path: path.stat().st_mtime_ns for path in place_of(variant).folder.iterdir()}
    assert opened(variant, verify=True).notes == ()
    assert {path: path.stat().st_mtime_ns for path in files} == files


def test_load_after_one_that_was_killed_before_checking_prepares_nothing(variant):
    index = prepared(variant)
    record(place_of(variant), msgspec.structs.replace(index, witness=()))
    [note] = opened(variant).notes
    assert note == "checked 3 weights that a load that did not finish had prepared"
    assert opened(variant).notes == ()


@pytest.mark.parametrize("prepare", [False, True])
def test_says_when_the_engine_is_about_to_read_the_graph(variant, monkeypatch, prepare):
    prepared(variant)
    happened = []
    name = "open_bytes" if prepare else "open"
    original = getattr(OnnxEngine, name)
    monkeypatch.setattr(
        OnnxEngine, name, lambda *given: (happened.append("opened"), original(*given))[1]
    )
    sessions.open_graph(
        variant, "main", 1, True, prepare=prepare, meanwhile=lambda: happened.append("about to")
    )
    assert happened == ["about to", "opened"]


def test_preparation_is_reported_apart_from_loading(variant):
    done = prepared(variant).preparation
    assert done.weights == done.packed == 3
    sizes = [path.stat().st_size for path in place_of(variant).folder.iterdir()]
    assert done.disk == done.new == sum(sizes) - place_of(variant).index_path.stat().st_size
    assert done.seconds > 0


def test_raw_weights_are_not_read_again(variant):
    expected = plain(variant)
    prepared(variant)
    raw = raw_weights(variant)
    assert len(raw) == 6
    for path in raw:
        path.write_bytes(b"")
    session = opened(variant, verify=True)
    assert session.notes == ()
    np.testing.assert_array_equal(logits(session, variant), expected)


def test_damaged_raw_weight_is_named_before_it_is_packed(variant):
    graph = variant.record.graphs[0]
    flip(variant.blob_path(graph.weights[1].digest))
    with pytest.raises(DigestError) as error:
        opened(variant, verify=True)
    assert graph.weights[1].digest in error.value.where
    assert not place_of(variant).folder.exists()


def test_forged_packed_bytes_never_serve(variant):
    expected, index = plain(variant), prepared(variant)
    place, weight = place_of(variant), index.weights[0]
    flip(place.path(weight.blob), at=weight.packed // 2)
    # The fault is real: the engine takes the forged bytes without a word.
    forged = OnnxEngine().open_bytes(place.model(index), variant.blobs.root, SessionOptions())
    assert not np.allclose(logits(forged, variant), expected, rtol=0.01)
    expect_plain(variant, "does not compute any more")
    prepared(variant)


def test_forged_bytes_that_change_little_are_found_by_their_digest(variant):
    index = prepared(variant)
    place, weight = place_of(variant), index.weights[0]
    size = weight.blob.size
    flip(place.path(weight.blob), at=size - 1)  # the last byte of the last scale
    expect_plain(variant, "does not match its digest", verify=True)


@pytest.fixture
def settled(monkeypatch):
    """Files count as left alone as soon as they are written."""
    monkeypatch.setattr(stamps, "SETTLED_NS", 0)


def hashed(variant: Variant, monkeypatch, verify: Verify = True) -> int:
    """How many files a load hashes: of the graph, and of what was prepared."""
    files = []
    with monkeypatch.context() as patch:
        for module, name in ((Variant, "verify_blob"), (artefact, "verify_file")):
            original = getattr(module, name)
            patch.setattr(
                module, name, lambda *given, do=original: (files.append(given), do(*given))
            )
        assert opened(variant, verify=verify).notes == ()
    return len(files)


def test_what_was_hashed_and_not_touched_since_is_not_hashed_again(variant, settled, monkeypatch):
    prepared(variant)
    every = 1 + 1 + 3  # the graph, its embedding, the packed weights
    assert [hashed(variant, monkeypatch) for _ in range(3)] == [every, 0, 0]
    assert hashed(variant, monkeypatch, "always") == every
    path = place_of(variant).path(index_of(variant).weights[0].blob)
    before = path.stat().st_ctime_ns
    while path.stat().st_ctime_ns == before:
        path.touch()
    assert [hashed(variant, monkeypatch) for _ in range(2)] == [1, 0]


def test_damage_that_changes_no_time_is_found_by_what_the_graph_computes(variant, settled):
    """As bad storage would: the stamp is made to fit what was damaged."""
    prepared(variant)
    opened(variant, verify=True)
    graph = variant.record.graphs[0]
    [embedding] = {blob.digest for blob in graph.weights} - set(index_of(variant).unread)
    path = variant.blob_path(embedding)
    for at in range(3, path.stat().st_size, 4):  # the exponents
        flip(path, at)
    known = place_of(variant).stamps_path
    old = msgspec.json.decode(known.read_bytes())
    new = Stamp.of(path)
    assert new is not None
    old["stamps"][embedding] = msgspec.to_builtins(new)
    known.write_bytes(msgspec.json.encode(old))
    for _ in range(2):  # nothing is prepared of it either
        with pytest.raises(DigestError) as error:
            opened(variant, verify=True)
        assert embedding in error.value.where
        assert not known.exists()
        assert not place_of(variant).index_path.exists()


def test_key_that_does_not_fit_never_serves(variant):
    expected, index = plain(variant), prepared(variant)
    place = place_of(variant)
    key = index.weights[0].key.encode()
    model = place.model(index).replace(key, key[:-1] + (b"0" if key[-1:] != b"0" else b"1"))
    blob = Blob(digest=f"sha256:{sha256(model).hexdigest()}", size=len(model))
    place.path(blob).write_bytes(model)
    place.write(msgspec.structs.replace(index, model=blob))
    forged = OnnxEngine().open_bytes(model, variant.blobs.root, SessionOptions())
    assert not np.allclose(logits(forged, variant), expected, rtol=0.01)
    expect_plain(variant, "does not compute any more", verify=True)


@pytest.mark.parametrize("field", ["layout", "graph"])
def test_artefact_of_another_layout_or_graph_is_refused(variant, field):
    index = prepared(variant)
    place_of(variant).write(msgspec.structs.replace(index, **{field: "0" * 64}))
    expect_plain(variant, "another graph, or packed for another CPU")


def test_other_options_of_the_engine_are_another_layout(variant):
    one = packing.layout_id(SessionOptions())
    other = packing.layout_id(SessionOptions(options={"session.disable_prepacking": "1"}))
    assert one != other
    assert one == packing.layout_id(SessionOptions(threads=2))


def test_what_an_older_engine_packed_is_dropped(variant):
    old = place_of(variant).folder.with_name("1" * 64)
    old.mkdir(parents=True)
    (old / "packed").touch()
    prepared(variant)
    assert not old.exists()


def test_file_cut_short_is_refused_before_it_is_mapped(variant):
    index = prepared(variant)
    path = place_of(variant).path(index.weights[1].blob)
    os.truncate(path, path.stat().st_size - 1)
    expect_plain(variant, "missing or cut short")


@pytest.mark.parametrize("content", [b"", b"{}", b'{"schema": "other"}', b'{"graph": "\xc7"}'])
def test_index_that_is_none_is_refused(variant, content):
    prepared(variant)
    place_of(variant).index_path.write_bytes(content)
    expect_plain(variant, "index")


def test_graph_without_such_weights_is_loaded_plainly_without_a_word(tmp_path):
    path = decoder(tmp_path / "bundle", layers=0, float_head=True)
    variant = open_bundle(path).variants[0]
    for _ in range(2):
        session = opened(variant, verify=True)
        assert session.notes == ()
        np.testing.assert_array_equal(logits(session, variant), plain(variant))


def test_nothing_is_prepared_that_could_not_be_checked(tmp_path):
    variant = open_bundle(decoder(tmp_path / "bundle", golden=False)).variants[0]
    [note] = opened(variant).notes
    assert "no golden case" in note


def test_result_that_fails_the_golden_case_is_not_prepared_again(tmp_path, variant):
    """A machine that computes something else than the converter's is told once, at no cost."""
    expected = plain(variant)
    [case] = variant.record.golden
    [ref] = case.outputs.values()
    weight = next(blob for blob in variant.record.graphs[0].weights if blob.size > 512)
    elsewhere = msgspec.structs.replace(ref, blob=weight)
    wrong = msgspec.structs.replace(case, outputs={"logits": elsewhere})
    record = msgspec.structs.replace(variant.record, golden=(wrong,))
    other = Variant(**(vars(variant) | {"record": record}))
    for _ in range(2):
        session = opened(other)
        assert "differs from the golden value" in session.notes[0]
        np.testing.assert_array_equal(logits(session, variant), expected)
    folder = place_of(variant).folder
    assert {path.name for path in folder.iterdir()} == {"lock", place_of(variant).index_path.name}


def test_store_that_cannot_be_written_loads_plainly(variant):
    (variant.blobs.root / "prepared").touch()  # root may write anywhere but into a file
    session = opened(variant)
    assert "loaded plainly" in session.notes[0]
    np.testing.assert_array_equal(logits(session, variant), plain(variant))


def test_layer_that_was_tuned_is_packed_anew_and_the_rest_is_shared(tmp_path):
    store = Store(tmp_path / "store")
    for version, tuned in (("1.0.0", None), ("2.0.0", 1)):
        path = decoder(tmp_path / version, layers=4, tuned=tuned, version=version)
        store.install(open_bundle(path))
    old, new = (store.open("tiny", version).variants[0] for version in ("1.0.0", "2.0.0"))
    expected = plain(new)
    first, second = prepared(old), prepared(new)
    assert (second.preparation.packed, second.preparation.weights) == (1, 5)
    inodes = [
        {place_of(v).path(weight.blob).stat().st_ino for weight in index.weights}
        for v, index in ((old, first), (new, second))
    ]
    assert len(inodes[0] & inodes[1]) == 4
    np.testing.assert_array_equal(logits(opened(new), new), expected)
    store.remove("tiny", "1.0.0")
    assert store.gc().prepared == (store.prepared / old.digest.removeprefix("sha256:"),)
    assert opened(new, verify=True).notes == ()


def test_damaged_file_of_another_version_is_packed_anew(tmp_path):
    store = Store(tmp_path / "store")
    for version in ("1.0.0", "2.0.0"):
        path = decoder(tmp_path / version, version=version)
        store.install(open_bundle(path))
    old, new = (store.open("tiny", version).variants[0] for version in ("1.0.0", "2.0.0"))
    index = prepared(old)
    flip(place_of(old).path(index.weights[0].blob))
    assert prepared(new).preparation.packed == 1
    assert opened(new, verify=True).notes == ()


def run(code: str, *arguments: object) -> str:
    """A fresh process."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


OPEN = """
import sys
from edge_sdk.bundle.reader import open_bundle
from edge_sdk.runtime import process, sessions
variant = open_bundle(sys.argv[1]).variants[0]
def load(prepare):
    return sessions.open_graph(variant, "main", 1, True, prepare=prepare)
"""


def test_two_processes_prepare_at_once(variant):
    code = OPEN + "print(load(True).notes)"
    command = [sys.executable, "-c", code, str(variant.blobs.root)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    notes = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert "loaded plainly" not in "".join(notes)
    assert opened(variant, verify=True).notes == ()


LARGE = {"layers": 12, "hidden": 2048, "block": 128}  # 2 MiB of codes per layer
PACKED = 2.25 * 2**20  # and eight bytes per block


def test_refused_write_loads_plainly_and_leaves_nothing(tmp_path):
    variant = open_bundle(decoder(tmp_path / "bundle", **LARGE)).variants[0]
    code = OPEN + (
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))\n"
        "print(load(True).notes[0])"
    )
    note = run(code, variant.blobs.root)
    assert "loaded plainly" in note
    assert [path.name for path in place_of(variant).folder.iterdir()] == ["lock"]


def test_too_little_room_is_said_before_anything_is_written(variant, monkeypatch):
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 9000)
    )
    session = opened(variant)
    assert "MB of disk, 0 MB are free" in session.notes[0]
    assert [path.name for path in place_of(variant).folder.iterdir()] == ["lock"]


def test_disk_full_half_way_loads_plainly_and_leaves_nothing(variant):
    folder = place_of(variant).folder
    held = []

    def fill(done: int, of: int) -> None:
        held.append(len(list(folder.iterdir())))
        if done == of:
            raise OSError(errno.ENOSPC, "No space left on device")

    session = sessions.open_graph(variant, "main", 1, True, progress=fill)
    assert held == [3, 4, 5]  # the lock, a folder for temporary files, and weight after weight
    assert "No space left" in session.notes[0]
    assert [path.name for path in folder.iterdir()] == ["lock"]


def test_preparing_needs_the_memory_of_one_weight(tmp_path):
    variant = open_bundle(decoder(tmp_path / "bundle", **LARGE)).variants[0]
    run(OPEN + "load(True)", variant.blobs.root)
    done = index_of(variant).preparation
    assert PACKED <= done.memory < 4 * PACKED < done.disk / 2


def test_version_beside_a_running_one_costs_the_memory_of_what_differs(tmp_path):
    store = Store(tmp_path / "store")
    for version, tuned in (("1.0.0", None), ("2.0.0", 5)):
        path = decoder(tmp_path / version, **LARGE, tuned=tuned, version=version)
        store.install(open_bundle(path))
        prepared(store.open("tiny", version).variants[0])
    code = (
        "import sys\n"
        "from edge_sdk.bundle.store import Store\n"
        "from edge_sdk.runtime import process, sessions\n"
        "def load(version):\n"
        "    variant = Store(sys.argv[1]).open('tiny', version).variants[0]\n"
        "    before = process.pss()\n"
        "    session = sessions.open_graph(variant, 'main', 1, True)\n"
        "    return process.pss() - before, session\n"
        "first, second = load('1.0.0'), load('2.0.0')\n"
        "print(first[0], second[0])"
    )
    first, second = map(int, run(code, store.root).split())
    assert first > 12 * PACKED  # every weight was touched by the check, so it counts
    assert second < 4 * PACKED


def test_further_sessions_cost_no_copy_of_the_weights(tmp_path):
    bundle = decoder(tmp_path / "bundle", **LARGE)
    code = OPEN + (
        "kept = [load(sys.argv[2] == 'True')]\n"
        "before = process.anonymous()\n"
        "kept.append(load(sys.argv[2] == 'True'))\n"
        "print(process.anonymous() - before)"
    )
    assert float(run(code, bundle, True)) < 12 * PACKED / 5
    assert float(run(code, bundle, False)) > 12 * PACKED * 4 / 5


@pytest.mark.slow
def test_killed_anywhere_the_next_use_converges(tmp_path):
    decoder(tmp_path / "bundle", layers=1)
    command = [sys.executable, "-m", "tests.runtime.killing_preparation", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 40
