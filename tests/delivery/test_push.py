from __future__ import annotations

import re
import subprocess

import pytest

from edge_sdk.bundle.reader import open_bundle
from edge_sdk.bundle.store import Store
from edge_sdk.errors import ConfigError, DigestError, TransferError
from edge_sdk.transport.push import push
from edge_sdk.transport.source import Reference
from edge_sdk.transport.transfer import Progress, Retry
from tests.bundle.forge import flip
from tests.bundle.samples import make_bundle
from tests.delivery.large import make_large
from tests.delivery.servers import Answer, serving

SOON = Retry(attempts=3, shortest=0.001, longest=0.002)


def requests(registry, method):
    return [line for line in registry.requests if line.startswith(method)]


def test_an_unchanged_bundle_is_not_sent_again(pushed, bundle, registry, client):
    before = len(requests(registry, "POST"))
    again = push(client, bundle, pushed)
    assert before > 0
    assert len(requests(registry, "POST")) == before
    assert again.pushed_bytes == bundle.descriptor.size  # the tag is set in any case
    assert again.reused_bytes == sum(
        blob.size
        for blob in {b for v in bundle.variants for b in v.all_blobs}
        if blob.digest not in {v.digest for v in bundle.variants}
    )


def test_a_fine_tune_sends_what_changed(pushed, bundle, registry, client, tmp_path):
    tuned = open_bundle(make_bundle(tmp_path / "v2", version="2.0.0", head=b"tuned"))
    before = len(requests(registry, "POST"))
    sent = push(client, tuned, Reference.parse(f"{registry.host}/models/digits:2.0.0"))
    new = {b for v in tuned.variants for b in v.all_blobs}
    new -= {b for v in bundle.variants for b in v.all_blobs}
    documents = {v.descriptor.blob for v in tuned.variants}
    assert len(requests(registry, "POST")) - before == len(new - documents)
    assert sent.pushed_bytes == sum(blob.size for blob in new) + tuned.descriptor.size


def test_the_tag_is_set_when_everything_is_there(pushed, bundle, registry):
    puts = requests(registry, "PUT")
    names = [re.search(r"manifests/(\S+)", line) for line in puts]
    assert [found and found[1] for found in names[-3:]] == [
        *(variant.digest for variant in bundle.variants),
        "1.0.0",
    ]
    assert not any(names[:-3])


def test_a_bundle_of_a_store_is_pushed_from_there(bundle, registry, client, tmp_path):
    store = Store(tmp_path / "store")
    store.install(bundle, "board")
    lone = store.open("digits")
    reference = Reference.parse(f"{registry.host}/digits:board")
    assert push(client, lone, reference).digest == bundle.variant("board").digest
    assert not any(bundle.descriptor.digest in line for line in registry.requests)


@pytest.mark.needs("skopeo", "skopeo")
def test_skopeo_reads_what_was_pushed(pushed, bundle, tmp_path):
    command = ["skopeo", "copy", "--all", "--src-tls-verify=false"]
    name = str(pushed).removeprefix("http://")
    subprocess.run(
        [*command, f"docker://{name}", f"oci:{tmp_path / 'copy'}:1.0.0"],
        check=True,
        capture_output=True,
    )
    copy = open_bundle(tmp_path / "copy")
    assert copy.descriptor.digest == bundle.descriptor.digest
    copy.verify()


def test_a_damaged_blob_is_found_before_the_registry_is_blamed(bundle, registry, client):
    flip(bundle.variants[0].blob_path(bundle.variants[0].files["variant.json"].digest))
    with pytest.raises(DigestError):
        push(client, bundle, Reference.parse(f"{registry.host}/digits:1.0.0"))
    assert not any("PUT /v2/digits/manifests/1.0.0" in line for line in registry.requests)


@pytest.mark.parametrize("text", ["localhost:1/a@sha256:" + "0" * 64])
def test_a_bundle_is_pushed_to_a_tag(bundle, client, text):
    with pytest.raises(ConfigError, match="pushed to a tag"):
        push(client, bundle, Reference.parse(text))


def test_progress_ends_with_all_of_it(bundle, registry, client):
    seen: list[Progress] = []
    push(client, bundle, Reference.parse(f"{registry.host}/digits:1.0.0"), progress=seen.append)
    assert seen[-1].bytes_done == seen[-1].bytes_total > 0
    assert seen[-1].blobs_done == seen[-1].blobs_total > 0


class Uploads:
    """A registry's uploads in chunks, as the specification has them.

    Attributes:
        blobs: What came, by hex digest.
        fail_at: Offset at which one chunk is answered with 503 after half of it was kept.
        failed: How often that happened.
        chunks: Whether it takes chunks.
    """

    def __init__(self) -> None:
        self.data = b""
        self.blobs: dict[str, bytes] = {}
        self.fail_at: int | None = None
        self.failed = 0
        self.chunks = True

    def __call__(self, asked):
        if asked.method == "HEAD":
            name = asked.path.rpartition("/")[2]
            return Answer(200 if name in self.blobs else 404)
        if "/manifests/" in asked.path:
            return Answer(201)
        if asked.method == "POST":
            self.data = b""
            return Answer(202, headers={"Location": "/v2/upload/1?state=x"})
        if asked.method == "GET":
            return Answer(204, headers={"Range": f"0-{len(self.data) - 1}"})
        if asked.method == "PATCH":
            return self.patch(asked)
        self.data += asked.body
        self.blobs[asked.path.rpartition("%3A")[2]] = self.data
        return Answer(201)

    def patch(self, asked):
        if not self.chunks:
            return Answer(405)
        start = int(asked.headers["content-range"].partition("-")[0])
        if start != len(self.data):
            return Answer(416)
        if start == self.fail_at:
            self.fail_at = None
            self.failed += 1
            self.data += asked.body[: len(asked.body) // 2]
            return Answer(503)
        self.data += asked.body
        return Answer(202, headers={"Location": "/v2/upload/1?state=y"})


@pytest.fixture
def large(tmp_path, monkeypatch):
    monkeypatch.setattr("edge_sdk.transport.push.CHUNKED_FROM", 50_000)
    monkeypatch.setattr("edge_sdk.transport.push.CHUNK", 30_000)
    return open_bundle(make_large(tmp_path / "large", 1, 100_000))


def largest(bundle):
    blob = max(bundle.variants[0].all_blobs, key=lambda blob: blob.size)
    return blob.digest[7:], bundle.variants[0].blob_path(blob.digest).read_bytes()


def test_a_chunk_that_broke_off_goes_on_where_it_was(large, client):
    uploads = Uploads()
    uploads.fail_at = 30_000
    seen: list[Progress] = []
    with serving(uploads) as server:
        reference = Reference.parse(f"{server.host}/large:1")
        push(client, large, reference, parallel=1, retry=SOON, progress=seen.append)
    assert uploads.failed == 1
    name, data = largest(large)
    assert uploads.blobs[name] == data
    starts = [a.headers["content-range"] for a in server.asked if a.method == "PATCH"]
    assert starts == ["0-29999", "30000-59999", "45000-74999", "75000-99999"]
    assert seen[-1].bytes_done == seen[-1].bytes_total


def test_a_registry_without_chunks_gets_one_piece(large, client):
    uploads = Uploads()
    uploads.chunks = False
    seen: list[Progress] = []
    with serving(uploads) as server:
        reference = Reference.parse(f"{server.host}/large:1")
        push(client, large, reference, parallel=1, retry=SOON, progress=seen.append)
    assert sum(asked.method == "PATCH" for asked in server.asked) == 1
    name, data = largest(large)
    assert uploads.blobs[name] == data
    assert seen[-1].bytes_done == seen[-1].bytes_total


def test_a_registry_that_refuses_is_asked_once(bundle, client):
    with serving(lambda asked: Answer(404 if asked.method == "HEAD" else 403)) as server:
        reference = Reference.parse(f"{server.host}/digits:1")
        with pytest.raises(TransferError, match="does not allow") as error:
            push(client, bundle, reference, parallel=1, retry=SOON)
    assert not error.value.passing
    assert not any("manifests/1" in asked.path and asked.method == "PUT" for asked in server.asked)
