from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from edge_sdk.bundle.reader import open_bundle
from edge_sdk.bundle.store import Store
from edge_sdk.errors import BundleError
from tests.bundle.forge import blob_file, flip
from tests.bundle.samples import make_bundle


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two versions that share all but the head."""
    folder = tmp_path_factory.mktemp("made")
    make_bundle(folder / "v1")
    make_bundle(folder / "v2", version="2.0.0", head=b"tuned")
    return folder


@pytest.fixture
def bundles(made, tmp_path):
    """The same two versions, this test's own."""
    copy = shutil.copytree(made, tmp_path / "bundles")
    return open_bundle(copy / "v1"), open_bundle(copy / "v2")


@pytest.fixture
def store(bundles, tmp_path):
    store = Store(tmp_path / "store")
    for bundle in bundles:
        store.install(bundle)
    return store


def blobs(root):
    return {file.name for file in (root / "blobs" / "sha256").iterdir()}


def test_an_installed_bundle_opens_from_the_store_alone(store, bundles):
    shutil.rmtree(bundles[0].path)
    bundle = store.open("digits", "1.0.0")
    bundle.verify()
    assert bundle.descriptor.digest == bundles[0].descriptor.digest
    assert bundle.variants[0].report == bundles[0].variants[0].report
    assert bundle.variant("board").blobs.root == store.root


@pytest.mark.parametrize(
    ("removed", "name", "version"),
    [
        (None, "digits:1.0.0", "1.0.0"),
        (None, "digits:2.0.0", "2.0.0"),
        ("1.0.0", "digits", "2.0.0"),
        ("1.0.0", "digits:2.0.0", "2.0.0"),
    ],
)
def test_a_stores_path_and_a_name_open_what_is_installed(store, removed, name, version):
    if removed:
        store.remove("digits", removed)
    bundle = open_bundle(f"{store.root}#{name}")
    assert (bundle.version, bundle.path) == (version, store.root)


@pytest.mark.parametrize("name", ["", "#digits", "#digits:3.0.0", "#none"])
def test_a_store_without_one_such_bundle_lists_what_can_be_opened(store, name):
    with pytest.raises(BundleError) as error:
        open_bundle(f"{store.root}{name}")
    assert f"{store.root}#digits:1.0.0, {store.root}#digits:2.0.0" in error.value.remedy


def test_a_bundle_may_have_the_mark_of_names_in_its_path(bundles, tmp_path):
    path = bundles[0].path.rename(tmp_path / "odd#digits")
    assert open_bundle(path).version == "1.0.0"


def test_a_store_holds_a_shared_blob_once(store, bundles):
    assert blobs(store.root) == blobs(bundles[0].path) | blobs(bundles[1].path)


def test_installing_one_profile_takes_only_its_blobs(bundles, tmp_path):
    store = Store(tmp_path / "store")
    variant = bundles[0].variant("board")
    store.install(bundles[0], "board")
    assert blobs(store.root) == {blob.digest[7:] for blob in variant.all_blobs}
    installed = store.open("digits")
    assert [(v.profile, v.digest) for v in installed.variants] == [("board", variant.digest)]
    assert installed.variants[0].platform == variant.platform
    assert installed.variants[0].report == variant.report


def test_installing_again_replaces_the_same_version(store, bundles):
    store.install(bundles[0], "board")
    assert sorted(entry.version for entry in store.ls()) == ["1.0.0", "2.0.0"]
    assert len(store.open("digits", "1.0.0").variants) == 1


def test_a_damaged_bundle_is_not_installed(store, bundles, tmp_path):
    other = Store(tmp_path / "other")
    weight = bundles[0].variants[0].record.graphs[0].weights[0]
    flip(blob_file(bundles[0].path, weight.digest))
    with pytest.raises(BundleError, match=weight.digest):
        other.install(bundles[0])
    assert other.ls() == ()


def test_installing_again_repairs_damaged_blobs(bundles, tmp_path):
    store = Store(tmp_path / "store")
    source = open_bundle(shutil.copytree(bundles[0].path, tmp_path / "source"))
    store.install(bundles[0])
    weight = bundles[0].variants[0].record.graphs[0].weights[0]
    flip(store.blobs.path(weight.digest))
    assert [problem.version for problem in store.verify()] == ["1.0.0"]
    store.install(source)
    assert list(store.verify()) == []


def test_verify_names_every_damaged_blob_once(store, bundles):
    shared, head = bundles[0].variants[0].record.graphs[0].weights
    for weight in (shared, head):
        flip(store.blobs.path(weight.digest))
    problems = list(store.verify())
    assert [problem.version for problem in problems] == ["1.0.0", "1.0.0"]
    for problem, weight in zip(problems, (shared, head), strict=True):
        assert weight.digest in problem.error.where


def test_verify_goes_on_after_a_bundle_that_cannot_be_opened(store, bundles):
    store.blobs.path(bundles[0].variants[0].digest).unlink()
    head = bundles[1].variants[0].record.graphs[0].weights[1]
    flip(store.blobs.path(head.digest))
    assert [problem.version for problem in store.verify()] == ["1.0.0", "2.0.0"]


def test_gc_of_a_clean_store_deletes_nothing(store):
    before = blobs(store.root)
    swept = store.gc()
    assert (swept.blobs, swept.prepared, swept.temporary) == ({}, (), ())
    assert blobs(store.root) == before


def test_gc_keeps_blobs_of_installed_bundles(store, bundles):
    store.remove("digits", "1.0.0")
    swept = store.gc()
    assert blobs(store.root) == blobs(bundles[1].path)
    assert {path.name for path in swept.blobs} == blobs(bundles[0].path) - blobs(bundles[1].path)
    assert list(store.verify()) == []


def test_gc_removes_what_was_prepared_for_absent_variants_only(store, bundles):
    old, new = (bundle.variant("board").digest[7:] for bundle in bundles)
    for name in (old, new):
        (store.prepared / name).mkdir(parents=True)
        (store.prepared / name / "packed").touch()
    store.remove("digits", "1.0.0")
    store.gc()
    assert [entry.name for entry in store.prepared.iterdir()] == [new]


def test_gc_dry_run_says_the_same_and_deletes_nothing(store):
    store.remove("digits", "1.0.0")
    (store.blobs.temporary / "stale").touch()
    before = blobs(store.root)
    foreseen = store.gc(dry_run=True)
    assert blobs(store.root) == before
    assert foreseen == store.gc()
    assert foreseen.blobs
    assert foreseen.temporary


def test_gc_leaves_files_it_does_not_know(store):
    (store.blobs.folder / "README").touch()
    assert not store.gc().blobs
    assert (store.blobs.folder / "README").exists()


@pytest.mark.parametrize("what", ["index", "manifest", "index.json", "oci-layout"])
@pytest.mark.parametrize("damage", ["flip", "unlink"])
def test_gc_deletes_nothing_while_it_cannot_tell_what_is_needed(store, bundles, what, damage):
    store.remove("digits", "1.0.0")
    file = {
        "index": store.blobs.path(bundles[1].descriptor.digest),
        "manifest": store.blobs.path(bundles[1].variants[0].digest),
    }.get(what, store.root / what)
    if damage == "flip":
        flip(file)
    else:
        file.unlink()
    before = blobs(store.root)
    with pytest.raises(BundleError):
        store.gc()
    assert blobs(store.root) == before


def test_a_damaged_bundle_can_be_listed_and_removed(store, bundles):
    store.blobs.path(bundles[0].variants[0].digest).unlink()
    assert len(store.ls()) == 2
    store.remove("digits", "1.0.0")
    store.gc()
    assert list(store.verify()) == []


def test_reading_writes_nothing(store):
    def snapshot():
        return {path: path.lstat().st_mtime_ns for path in store.root.rglob("*")}

    before = snapshot()
    store.ls()
    store.open("digits", "2.0.0").verify()
    assert list(store.verify()) == []
    store.gc(dry_run=True)
    assert snapshot() == before


def test_asking_about_a_store_that_is_none_does_not_make_one(tmp_path):
    store = Store(tmp_path / "absent")
    for ask in (store.ls, store.gc, lambda: store.open("x"), lambda: store.remove("x", "1")):
        with pytest.raises(BundleError, match="cannot be read"):
            ask()
    assert not store.root.exists()


def test_what_is_not_installed_is_refused_with_what_is(store):
    for ask in (lambda: store.open("digits", "3"), lambda: store.remove("digits", "3")):
        with pytest.raises(BundleError, match=r"digits 1\.0\.0, digits 2\.0\.0"):
            ask()
    with pytest.raises(BundleError, match="several versions"):
        store.open("digits")


def test_concurrent_installs_and_collections_lose_nothing(made, tmp_path):
    versions = [f"{number}.0.0" for number in range(1, 9)]
    store = Store(tmp_path / "store")
    store.install(open_bundle(made / "v1"))
    made_here = [
        open_bundle(make_bundle(tmp_path / version, version=version, head=version.encode()))
        for version in versions
    ]
    with ThreadPoolExecutor(6) as pool:
        jobs = []
        for bundle in made_here:
            jobs += [pool.submit(Store(store.root).install, bundle), pool.submit(store.gc)]
        for job in jobs:
            job.result()
    assert sorted(entry.version for entry in store.ls()) == versions
    assert list(store.verify()) == []


@pytest.mark.parametrize("scenario", ["install", "first_install", "gc", "write"])
def test_a_kill_at_any_file_system_call_breaks_no_promise(scenario, tmp_path):
    command = [sys.executable, "-m", "tests.bundle.killing", scenario, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10, "kills"


def test_what_is_not_complete_is_not_entered(store, bundles):
    store.remove("digits", "2.0.0")
    new = blobs(bundles[1].path) - blobs(bundles[0].path)
    (store.root / "blobs" / "sha256" / min(new)).unlink()
    with pytest.raises(BundleError, match="missing"):
        store.enter(bundles[1].descriptor, bundles[1].descriptor.digest)
    assert [entry.version for entry in store.ls()] == ["1.0.0"]


def test_one_variant_is_entered_with_the_digest_of_its_bundle(store, bundles):
    bundle = bundles[1]
    entry = store.enter(bundle.variant("board").descriptor, bundle.descriptor.digest)
    assert (entry.version, entry.bundle_digest) == ("2.0.0", bundle.descriptor.digest)
    assert [v.profile for v in store.open("digits", "2.0.0").variants] == ["board"]
    assert [found.bundle_digest for found in store.ls()] == [b.descriptor.digest for b in bundles]
