from __future__ import annotations

import os
import shutil

import pytest

from edge_sdk.bundle.reader import open_bundle
from edge_sdk.errors import BundleError, DigestError
from tests.bundle.forge import blob_file, flip, forge
from tests.bundle.samples import make_bundle

DOCUMENTS = ("image index", "manifest", "config", "variant.json")
LAYERS = ("model/main.onnx", "weight", "head", "tokenizer.json", "array", "README.md")


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("intact") / "b")


@pytest.fixture
def path(intact, tmp_path):
    return shutil.copytree(intact, tmp_path / "b")


def digest_of(path, part):
    """The digest of one part of the first variant, and the name that errors give it."""
    bundle = open_bundle(path)
    variant = bundle.variants[0]
    names = list(variant.files)
    return {
        "image index": (bundle.descriptor.digest, ""),
        "manifest": (variant.digest, ""),
        "config": (variant.manifest.config.digest, ""),
        "weight": (variant.files[names[2]].digest, names[2]),
        "head": (variant.files[names[3]].digest, names[3]),
        "array": (variant.files[names[5]].digest, names[5]),
    }.get(part) or (variant.files[part].digest, part)


@pytest.mark.parametrize("part", DOCUMENTS)
@pytest.mark.parametrize("position", [0, -1])
def test_a_flipped_bit_in_a_document_stops_opening_and_names_the_blob(path, part, position):
    digest, _ = digest_of(path, part)
    flip(blob_file(path, digest), position)
    with pytest.raises(DigestError) as caught:
        open_bundle(path)
    assert digest in caught.value.where


@pytest.mark.parametrize("part", LAYERS)
@pytest.mark.parametrize("position", [0, -1])
def test_a_flipped_bit_in_a_layer_fails_verify_and_names_blob_and_path(path, part, position):
    digest, name = digest_of(path, part)
    flip(blob_file(path, digest), position)
    bundle = open_bundle(path)
    with pytest.raises(DigestError) as caught:
        bundle.verify()
    assert digest in caught.value.where
    assert name in caught.value.where
    assert caught.value.remedy


@pytest.mark.parametrize("part", DOCUMENTS + LAYERS)
@pytest.mark.parametrize("damage", ["missing", "cut short", "longer", "a directory"])
def test_a_missing_or_resized_blob_stops_opening_and_names_it(path, part, damage):
    digest, name = digest_of(path, part)
    file = blob_file(path, digest)
    data = file.read_bytes()
    file.unlink()
    if damage == "a directory":
        file.mkdir()
    elif damage != "missing":
        file.write_bytes(data[:-1] if damage == "cut short" else data + b"\0")
    with pytest.raises(BundleError) as caught:
        open_bundle(path)
    assert digest in caught.value.where
    assert name in caught.value.where


@pytest.mark.parametrize("name", ["index.json", "oci-layout"])
def test_a_truncated_entry_file_is_named(path, name):
    data = (path / name).read_bytes()
    for length in (0, 1, len(data) // 2, len(data) - 1):
        (path / name).write_bytes(data[:length])
        with pytest.raises(BundleError) as caught:
            open_bundle(path)
        assert caught.value.where == str(path / name)
    (path / name).unlink()
    with pytest.raises(BundleError, match="cannot be read"):
        open_bundle(path)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[]", b"null", b"[" * 100_000, b'{"a":1}'])
def test_an_entry_file_that_is_something_else_is_named(path, content):
    (path / "index.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"index\.json: not a valid Index"):
        open_bundle(path)


@pytest.mark.parametrize("unsafe", ["../../etc/cron.d/x", "/etc/passwd", "a/../b", "a\\..\\b", ""])
def test_an_unsafe_path_annotation_stops_opening_and_names_the_key(path, unsafe):
    def edit(manifest):
        manifest["layers"][1]["annotations"]["org.cncf.model.filepath"] = unsafe

    forge(path, manifest=edit)
    with pytest.raises(BundleError, match="unsafe path") as caught:
        open_bundle(path)
    assert caught.value.where.endswith("layers[1] org.cncf.model.filepath")


@pytest.mark.parametrize(
    "digest", ["sha256:../../../etc/passwd", "sha256:abc", "md5:" + "0" * 32, "../x"]
)
@pytest.mark.parametrize("place", ["top", "index", "layer", "config", "record"])
def test_a_digest_that_is_none_stops_opening(path, digest, place):
    def entry(document):
        document["manifests"][0]["digest"] = digest

    def layer(manifest):
        manifest["layers"][1]["digest"] = digest

    def config(manifest):
        manifest["config"]["digest"] = digest

    def record(document):
        document["graphs"][0]["parts"][0]["digest"] = digest

    edits = {
        "top": {"top": entry},
        "index": {"index": entry},
        "layer": {"manifest": layer},
        "config": {"manifest": config},
        "record": {"record": record},
    }
    forge(path, **edits[place])
    with pytest.raises(BundleError, match=r"not a sha256 digest|no layer of the manifest"):
        open_bundle(path)


def wrong(*keys, value="application/wrong"):
    """An edit that puts ``value`` where ``keys`` lead."""

    def edit(document):
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return edit


@pytest.mark.parametrize(
    "edits",
    [
        {"layout": wrong("imageLayoutVersion", value="2.0.0")},
        {"top": wrong("schemaVersion", value=1)},
        {"top": wrong("mediaType")},
        {"top": wrong("manifests", value=[])},
        {"top": wrong("manifests", 0, "mediaType")},
        {"top": wrong("manifests", 0, "size", value=5 * 2**20)},
        {"top": wrong("manifests", 0, "size", value=-1)},
        {"index": wrong("schemaVersion", value=3)},
        {"index": wrong("mediaType")},
        {"index": wrong("manifests", value=[])},
        {"index": wrong("manifests", 0, "mediaType")},
        {"index": wrong("manifests", 0, "annotations", "org.edge-sdk.profile")},
        {"index": wrong("manifests", 0, "annotations", "org.edge-sdk.report", value="{")},
        {"index": wrong("manifests", 0, "annotations", "org.edge-sdk.report", value="{}")},
        {"index": lambda index: index["manifests"].append(index["manifests"][0])},
        {"manifest": wrong("schemaVersion", value=3)},
        {"manifest": wrong("mediaType")},
        {"manifest": wrong("artifactType")},
        {"manifest": lambda manifest: manifest.pop("artifactType")},
        {"manifest": wrong("config", "mediaType")},
        {"manifest": wrong("config", "size", value=1)},
        {"manifest": wrong("layers", 2, "mediaType")},
        {"manifest": wrong("layers", 2, "size", value=1)},
        {"manifest": lambda manifest: manifest["layers"][2].pop("annotations")},
        {"manifest": lambda manifest: manifest["layers"].append(manifest["layers"][1])},
        {"manifest": lambda manifest: manifest["layers"].pop(0)},
        {"manifest": lambda manifest: manifest["layers"].pop(2)},
        {"record": wrong("schema", value="org.edge-sdk.variant/999")},
        {"record": lambda record: record.pop("schema")},
        {"record": wrong("surprise", value=1)},
        {"record": wrong("graphs", value=7)},
        {"record": wrong("name", value="../evil")},
        {"record": wrong("version", value="2.0.0")},
        {"record": wrong("profile", value="board")},
        {"record": wrong("graphs", 0, "weights", 0, "size", value=1)},
    ],
)
def test_a_document_that_lies_stops_opening_and_says_where(path, edits):
    forge(path, **edits)
    with pytest.raises(BundleError) as caught:
        open_bundle(path)
    assert caught.value.where


def test_a_report_of_a_newer_schema_is_refused(path):
    def newer(index):
        annotations = index["manifests"][0]["annotations"]
        report = annotations["org.edge-sdk.report"]
        annotations["org.edge-sdk.report"] = report.replace("report/1", "report/2")

    forge(path, index=newer)
    with pytest.raises(BundleError, match=r"org\.edge-sdk\.report: schema: found .*report/2"):
        open_bundle(path)


def test_forging_nothing_leaves_a_bundle_that_opens(path):
    forge(path)
    open_bundle(path).verify()


def test_unknown_fields_of_oci_documents_are_ignored(path):
    forge(path, index=wrong("subject", value={}), manifest=wrong("annotations", value={"a": "b"}))
    open_bundle(path).verify()


def test_a_pipe_in_place_of_a_blob_does_not_block(path):
    digest, _ = digest_of(path, "weight")
    blob_file(path, digest).unlink()
    os.mkfifo(blob_file(path, digest))
    with pytest.raises(BundleError, match="not a regular file"):
        open_bundle(path)
