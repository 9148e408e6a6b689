from __future__ import annotations

import threading

import pytest

from device_profiles.select import select_here
from edge_sdk.bundle import oci
from edge_sdk.bundle.blobs import BlobStore
from edge_sdk.bundle.store import Store
from edge_sdk.errors import BundleError, DigestError, ProfileError, TransferError, WorkError
from edge_sdk.transport.fetch import choose, fetch
from edge_sdk.transport.transfer import Progress, RateLimit, Retry, Transfer
from tests.bundle.forge import flip, forge
from tests.bundle.samples import SHARED, make_bundle
from tests.delivery.sources import REFERENCE, LayoutSource

SOON = Retry(attempts=3, shortest=0.001, longest=0.002)


@pytest.fixture
def source(bundle):
    return LayoutSource(bundle.path)


def bring(source, root, **options):
    """Fetches into a store and lists what came."""
    fetched = fetch(source, REFERENCE, root, **{"retry": SOON, **options})
    store = Store(root)
    store.enter(fetched.descriptor, fetched.bundle.digest)
    assert list(store.verify()) == []
    return store, fetched


def landed(root):
    """Blobs that are in their place."""
    return {f"sha256:{file.name}" for file in BlobStore(root).folder.iterdir()}


def of_record(bundle):
    """A layer that is long enough to break off in."""
    return bundle.variants[0].files["variant.json"].blob


def test_what_was_fetched_is_the_bundle(source, bundle, tmp_path):
    store, fetched = bring(source, tmp_path / "store")
    opened = store.open("digits", "1.0.0")
    assert [v.record for v in opened.variants] == [v.record for v in bundle.variants]
    assert fetched.bundle.digest == bundle.descriptor.digest
    assert fetched.fetched_bytes == sum(source.given.values())
    assert fetched.reused_bytes == 0


def test_only_missing_blobs_travel(source, tmp_path):
    bring(source, tmp_path / "store")
    tuned = LayoutSource(make_bundle(tmp_path / "v2", version="2.0.0", head=b"tuned"))
    before = landed(tmp_path / "store")
    _, fetched = bring(tuned, tmp_path / "store")
    new = {f"sha256:{file.name}" for file in tuned.blobs.folder.iterdir()} - before
    assert set(tuned.given) == new
    assert fetched.fetched_bytes == sum(tuned.blobs.path(digest).stat().st_size for digest in new)
    assert fetched.reused_bytes >= len(SHARED)


def test_a_bundle_that_is_here_costs_nothing(source, tmp_path):
    bring(source, tmp_path / "store")
    again = LayoutSource(source.blobs.root)
    _, fetched = bring(again, tmp_path / "store")
    assert (fetched.fetched_bytes, again.given) == (0, {})


def test_one_profile_costs_its_own_blobs(source, bundle, tmp_path):
    store, fetched = bring(source, tmp_path / "store", profile="board")
    variant = bundle.variant("board")
    wanted = {blob.digest for blob in variant.all_blobs} | {bundle.descriptor.digest}
    assert set(source.given) == wanted
    (entry,) = store.ls()
    assert entry.descriptor.digest == fetched.descriptor.digest == variant.digest
    assert entry.bundle_digest == bundle.descriptor.digest
    assert store.open("digits").variants[0].report == variant.report
    store.gc()
    assert list(store.verify()) == []


def test_unknown_profiles_are_told_what_there_is(source, tmp_path):
    with pytest.raises(BundleError, match="profile 'jetson'") as error:
        fetch(source, REFERENCE, tmp_path / "store", profile="jetson")
    assert "x86-64, board" in str(error.value.remedy)


def test_a_function_picks_what_this_machine_can_run(bundle):
    from device_profiles.machine import detect_machine

    here = detect_machine().platform
    own = oci.Platform(os=here.os, architecture=here.architecture, variant=here.variant)
    other = oci.Platform(os="plan9", architecture="mips")
    (suits,) = choose(_for_platforms(mine=own, other=other), select_here)
    assert suits.annotations[oci.PROFILE] == "mine"
    with pytest.raises(ProfileError):
        choose(_for_platforms(other=other), select_here)


def _for_platforms(**platforms):
    return tuple(
        oci.Descriptor(
            media_type=oci.MANIFEST,
            digest="sha256:" + "0" * 64,
            size=1,
            annotations={oci.PROFILE: name},
            platform=platform,
        )
        for name, platform in platforms.items()
    )


def test_a_variant_outside_an_index_is_taken_as_it_is():
    lone = oci.Descriptor(media_type=oci.MANIFEST, digest="sha256:" + "0" * 64, size=1)
    assert choose((lone,), "board") == (lone,)
    assert choose((lone,), select_here) == (lone,)


@pytest.mark.parametrize("times", [1, 7])
def test_a_broken_transfer_goes_on_where_it_was(source, bundle, tmp_path, times):
    source.break_off(after=2, times=times)
    _, fetched = bring(source, tmp_path / "store")
    assert source.happened > 0
    record = of_record(bundle)
    assert source.asked[record.digest][:2] == [0, 512]
    assert fetched.fetched_bytes == sum(source.given.values())
    assert all(
        count == source.blobs.path(digest).stat().st_size for digest, count in source.given.items()
    ), "something travelled twice"


def test_no_progress_ends_it_and_the_next_fetch_goes_on(source, tmp_path):
    source.break_off(after=0, times=1000)
    with pytest.raises(TransferError, match="was cut"):
        fetch(source, REFERENCE, tmp_path / "store", retry=SOON, parallel=1)
    assert len(next(iter(source.asked.values()))) == SOON.attempts
    source.fault = None
    bring(source, tmp_path / "store")


def test_refusals_are_not_repeated(source, tmp_path):
    def fault(blob, pieces):
        source.happened += 1
        raise TransferError("not for you", passing=False)
        yield

    source.fault = fault
    with pytest.raises(TransferError, match="not for you"):
        fetch(source, REFERENCE, tmp_path / "store", retry=SOON, parallel=1)
    assert max(len(offsets) for offsets in source.asked.values()) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda piece: bytes([piece[0] ^ 1]) + piece[1:],
        lambda piece: piece + b"more",
        lambda piece: b"x" * 100_000,
    ],
    ids=["flipped", "longer", "far longer"],
)
def test_wrong_bytes_never_land(source, bundle, tmp_path, change):
    record = of_record(bundle)
    source.change(change, record.digest)
    with pytest.raises(DigestError, match="bytes that came are others") as error:
        fetch(source, REFERENCE, tmp_path / "store", retry=SOON)
    assert source.happened == 1
    assert record.digest in str(error.value)
    assert record.digest not in landed(tmp_path / "store")
    assert not (tmp_path / "store" / "partial" / record.digest[7:]).exists()
    source.fault = None
    bring(source, tmp_path / "store")


def test_a_source_that_says_less_than_it_has_is_refused(source, bundle, tmp_path):
    source.change(lambda piece: piece[:-1], of_record(bundle).digest)
    with pytest.raises((TransferError, DigestError)):
        fetch(source, REFERENCE, tmp_path / "store", retry=SOON)
    assert source.happened
    assert of_record(bundle).digest not in landed(tmp_path / "store")


@pytest.mark.parametrize("damage", ["flipped", "longer", "zeros"])
def test_a_damaged_partial_file_is_begun_anew(source, bundle, tmp_path, damage):
    record = of_record(bundle)
    data = source.blobs.path(record.digest).read_bytes()
    damaged = {"flipped": b"x" + data[1:512], "longer": data + b"x", "zeros": bytes(512)}
    partial = tmp_path / "store" / "partial" / record.digest[7:]
    partial.parent.mkdir(parents=True)
    partial.write_bytes(damaged[damage])
    seen: list[Progress] = []
    bring(source, tmp_path / "store", progress=seen.append)
    assert source.asked[record.digest][-1] == 0
    assert seen[-1].bytes_done == seen[-1].bytes_total


def test_a_complete_partial_file_is_not_fetched_again(source, bundle, tmp_path):
    record = of_record(bundle)
    partial = tmp_path / "store" / "partial" / record.digest[7:]
    partial.parent.mkdir(parents=True)
    partial.write_bytes(source.blobs.path(record.digest).read_bytes())
    bring(source, tmp_path / "store")
    assert record.digest not in source.asked


def test_a_damaged_blob_is_replaced(source, bundle, tmp_path):
    store, _ = bring(source, tmp_path / "store")
    flip(store.blobs.path(of_record(bundle).digest))
    again = LayoutSource(source.blobs.root)
    bring(again, tmp_path / "store")
    assert set(again.given) == {of_record(bundle).digest}


def test_blobs_of_other_layouts_do_not_travel(source, bundle, tmp_path):
    _, fetched = bring(source, tmp_path / "store", reuse=[BlobStore(bundle.path)])
    assert not source.asked
    assert fetched.fetched_bytes == sum(source.given.values())  # documents


def test_a_disk_that_is_too_small_is_noticed_before_the_start(bundle, tmp_path):
    def claim(manifest):
        manifest["layers"][-1]["size"] = 2**60

    forge(bundle.path, manifest=claim)
    source = LayoutSource(bundle.path)
    with pytest.raises(WorkError, match=r"are missing and the disk has .* nothing was fetched"):
        fetch(source, REFERENCE, tmp_path / "store", retry=SOON, profile="x86-64")
    assert not source.asked


@pytest.mark.parametrize("digest", ["sha256:../../../../outside", "sha512:" + "0" * 128, "x"])
@pytest.mark.parametrize("where", ["index", "manifest"])
def test_digests_that_are_none_go_nowhere(bundle, tmp_path, digest, where):
    def edit(document):
        document["manifests" if where == "index" else "layers"][0]["digest"] = digest

    forge(bundle.path, **{where: edit})
    source = LayoutSource(bundle.path)
    with pytest.raises(BundleError, match="not a sha256 digest"):
        fetch(source, REFERENCE, tmp_path / "store", retry=SOON)
    assert digest not in {*source.asked, *source.given}


def test_one_digest_with_two_sizes_is_refused(bundle, tmp_path):
    def edit(manifest):
        layer = manifest["layers"][-1]
        copy = {**layer, "size": layer["size"] + 1}
        copy["annotations"] = {oci.FILEPATH: "another"}
        manifest["layers"].append(copy)

    forge(bundle.path, manifest=edit)
    source = LayoutSource(bundle.path)
    with pytest.raises(BundleError, match="several sizes"):
        fetch(source, REFERENCE, tmp_path / "store", retry=SOON)
    assert not source.asked


def test_a_manifest_that_is_far_too_large_is_not_asked_for(bundle, tmp_path):
    def edit(index):
        index["manifests"][0]["size"] = oci.MANIFEST_LIMIT + 1

    forge(bundle.path, index=edit)
    source = LayoutSource(bundle.path)
    with pytest.raises(BundleError, match="more than a manifest may have"):
        fetch(source, REFERENCE, tmp_path / "store", retry=SOON)


def test_a_tag_that_moved_is_not_the_digest_that_was_asked_for(source, tmp_path):
    other = REFERENCE.at("sha256:" + "1" * 64)
    with pytest.raises(DigestError, match="stands for"):
        fetch(source, other, tmp_path / "store", retry=SOON)


def test_what_is_not_wanted_any_more_stops_and_can_go_on(source, bundle, tmp_path):
    count = 0

    def cancelled():
        nonlocal count
        count += 1
        return count > 30

    with pytest.raises(TransferError, match="stopped") as error:
        fetch(source, REFERENCE, tmp_path / "store", cancelled=cancelled, parallel=1)
    assert error.value.passing
    bring(source, tmp_path / "store")
    sizes = {digest: source.blobs.path(digest).stat().st_size for digest in source.given}
    assert all(source.given[digest] <= size + 256 for digest, size in sizes.items())


def test_a_fetch_that_waits_for_a_byte_can_be_stopped(source, tmp_path):
    waits, closed = threading.Event(), threading.Event()

    def fault(blob, pieces):
        waits.set()
        assert closed.wait(20)
        raise TransferError("it was closed")
        yield

    source.fault = fault
    source.close = closed.set
    with pytest.raises(TransferError, match="stopped"):
        fetch(source, REFERENCE, tmp_path / "store", cancelled=waits.is_set)
    assert closed.is_set()


def test_a_source_that_nothing_wakes_is_left_behind(source, tmp_path):
    """As while it connects."""
    waits, ended, late = threading.Event(), threading.Event(), threading.Event()

    def resolve(reference):
        waits.set()
        if not ended.wait(30):
            late.set()
        raise TransferError("is not reached")

    source.resolve = resolve
    with pytest.raises(TransferError, match="stopped"):
        fetch(source, REFERENCE, tmp_path / "store", cancelled=waits.is_set)
    assert not late.is_set()
    ended.set()


def test_progress_grows_and_ends_with_all_of_it(source, tmp_path):
    seen: list[Progress] = []
    source.break_off(after=2)
    bring(source, tmp_path / "store", progress=seen.append)
    shares = [(step.bytes_done, step.blobs_done) for step in seen]
    assert [share[0] for share in shares] == sorted(share[0] for share in shares)
    last = seen[-1]
    assert last.bytes_done == last.bytes_total > 0
    assert last.blobs_done == last.blobs_total == len(source.asked)


def test_gc_does_not_take_what_is_being_fetched(source, bundle, tmp_path):
    store = Store(tmp_path / "store")
    store.install(bundle)
    store.remove("digits", "1.0.0")
    said: list[str] = []

    def fault(blob, pieces):
        with pytest.raises(WorkError, match="at work") as error:
            store.gc()
        said.append(str(error.value))
        yield from pieces

    store.blobs.path(of_record(bundle).digest).unlink()
    source.fault = fault
    bring(source, tmp_path / "store")
    assert said
    assert store.gc().blobs == {}


def test_gc_sweeps_what_came_in_part(source, tmp_path):
    bring(source, tmp_path / "store")
    partial = tmp_path / "store" / "partial" / ("0" * 64)
    partial.write_bytes(b"part")
    assert Store(tmp_path / "store").gc().temporary == (partial,)
    assert not partial.exists()


def test_fetches_into_one_store_take_turns(source, tmp_path):
    again = LayoutSource(source.blobs.root)
    found = []
    threads = [
        threading.Thread(target=lambda s=s: found.append(fetch(s, REFERENCE, tmp_path / "store")))
        for s in (source, again)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(bool(fetched.fetched_bytes) for fetched in found) == [False, True]


def test_a_rate_limit_lets_half_a_second_pass_and_makes_the_rest_wait():
    now = 100.0
    limit = RateLimit(1000, lambda: now)
    assert limit.debt(500) == 0
    assert limit.debt(1000) == pytest.approx(1.0)
    assert limit.debt(1000) == pytest.approx(2.0)
    now = 110.0
    assert limit.debt(600) == pytest.approx(0.1)
    assert RateLimit(None).debt(10**9) == 0


def test_a_limited_fetch_is_as_slow_as_it_was_told(source, tmp_path):
    from time import monotonic

    began = monotonic()
    _, fetched = bring(source, tmp_path / "store", rate_limit=100_000)
    assert monotonic() - began >= fetched.fetched_bytes / 100_000 - RateLimit.BURST - 0.1


def test_attempts_are_counted_anew_after_progress():
    done, tries = 0, 0

    def work():
        nonlocal done, tries
        tries += 1
        if tries % 3 == 0:
            done += 1
        if done < 4:
            raise TransferError("broke off")
        return done

    assert Transfer("x", retry=SOON).persist(work, lambda: done) == 4
    assert tries == 12
