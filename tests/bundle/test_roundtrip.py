from __future__ import annotations

import shutil
import subprocess

import msgspec
import pytest

from edge_sdk.bundle import oci
from edge_sdk.bundle.reader import open_bundle
from edge_sdk.bundle.record import Blob, Engine, File, Graph
from edge_sdk.bundle.store import Store
from edge_sdk.bundle.writer import BundleWriter
from edge_sdk.errors import BundleError
from tests.bundle.samples import AMD64, ARMV7, make_bundle, make_record, make_report


def blobs_of(path):
    return {file.name for file in (path / "blobs" / "sha256").iterdir()}


def test_a_bundle_reads_back_as_it_was_written(tmp_path):
    with BundleWriter(tmp_path / "b") as writer:
        record = make_record(writer, "x86-64")
        descriptor = writer.add_variant(record, AMD64, make_report("x86-64"))
        path = writer.finish()
    bundle = open_bundle(path)
    variant = bundle.variant("x86-64")
    assert (bundle.name, bundle.version) == ("digits", "1.0.0")
    assert variant.record == record
    assert variant.report == make_report("x86-64")
    assert variant.platform == AMD64
    assert variant.descriptor == descriptor
    bundle.verify()


def test_a_layout_has_nothing_but_the_standard_files(tmp_path):
    path = make_bundle(tmp_path / "b")
    assert {entry.name for entry in path.iterdir()} == {"oci-layout", "index.json", "blobs"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["b"]


def test_the_graph_finds_its_weights_as_siblings(tmp_path):
    bundle = open_bundle(make_bundle(tmp_path / "b"))
    variant = bundle.variant("board")
    graph = variant.record.graphs[0]
    file = variant.blob_path(graph.parts[0].digest)
    for blob in graph.weights:
        assert (file.parent / blob.digest.removeprefix("sha256:")).stat().st_size == blob.size
        assert variant.files[f"model/{blob.digest[7:]}"].media_type == oci.WEIGHT


def test_the_same_input_gives_the_same_bytes(tmp_path):
    a, b = make_bundle(tmp_path / "a"), make_bundle(tmp_path / "b")
    assert blobs_of(a) == blobs_of(b)
    assert (a / "index.json").read_bytes() == (b / "index.json").read_bytes()


def test_the_order_of_mappings_does_not_change_a_digest(tmp_path):
    digests = []
    for name, options in (("a", {"x": "1", "y": "2"}), ("b", {"y": "2", "x": "1"})):
        with BundleWriter(tmp_path / name) as writer:
            engine = Engine(name="onnx", options=options)
            record = make_record(writer, "board", engine=engine)
            digests.append(writer.add_variant(record, ARMV7).digest)
    assert digests[0] == digests[1]


def test_what_was_measured_does_not_change_a_variants_digest(tmp_path):
    digests = []
    for name, seconds in (("a", 1.0), ("b", 2.0)):
        with BundleWriter(tmp_path / name) as writer:
            report = msgspec.structs.replace(make_report("x86-64"), seconds=seconds)
            digests.append(writer.add_variant(make_record(writer, "x86-64"), AMD64, report).digest)
    assert digests[0] == digests[1]


def test_a_shared_blob_is_stored_once(tmp_path):
    bundle = open_bundle(make_bundle(tmp_path / "b"))
    weights = [variant.record.graphs[0].weights for variant in bundle.variants]
    assert weights[0] == weights[1]
    needed = [{blob.digest for blob in variant.all_blobs} for variant in bundle.variants]
    assert len(blobs_of(bundle.path)) == len(needed[0] | needed[1]) + 1  # and the image index


def test_a_changed_layer_leaves_all_other_layers_shared(tmp_path):
    old, new = (
        open_bundle(make_bundle(tmp_path / name, head=head)).variant("x86-64")
        for name, head in (("a", b"head"), ("b", b"tuned"))
    )
    changed = [path for path, layer in new.files.items() if layer not in old.manifest.layers]
    head = new.record.graphs[0].weights[1]
    assert changed == ["variant.json", f"model/{head.digest[7:]}"]


def test_descriptors_in_the_index_have_a_profile_and_no_artifact_type(tmp_path):
    bundle = open_bundle(make_bundle(tmp_path / "b"))
    text = bundle.variants[0].blobs.read(bundle.descriptor.blob, oci.MANIFEST_LIMIT)
    entries = msgspec.json.decode(text)["manifests"]
    assert [entry["annotations"][oci.PROFILE] for entry in entries] == ["x86-64", "board"]
    assert entries[1]["platform"] == {"architecture": "arm", "os": "linux", "variant": "v7"}
    assert not any("artifactType" in entry for entry in entries)


def test_an_opaque_file_keeps_its_parts_in_order(tmp_path):
    with BundleWriter(tmp_path / "b") as writer:
        parts = tuple(writer.blobs.put([bytes([i])]) for i in range(3))
        graph = Graph(name="main", format="tflite", parts=parts)
        writer.add_variant(make_record(writer, "board", graphs=(graph,)), ARMV7)
        variant = open_bundle(writer.finish()).variants[0]
    names = [path for path in variant.files if path.startswith("model/")]
    assert names == [f"model/main.tflite.0000{i}" for i in range(3)]
    assert variant.record.graphs[0].parts == parts


def test_an_unknown_profile_lists_those_there_are(tmp_path):
    bundle = open_bundle(make_bundle(tmp_path / "b"))
    with pytest.raises(BundleError, match="x86-64, board"):
        bundle.variant("toaster")


def test_an_existing_bundle_is_kept_unless_told_to_overwrite(tmp_path):
    path = make_bundle(tmp_path / "b")
    with pytest.raises(BundleError, match="the bundle exists"):
        make_bundle(path, version="2.0.0")
    assert open_bundle(path).version == "1.0.0"
    make_bundle(path, version="2.0.0", overwrite=True)
    assert open_bundle(path).version == "2.0.0"
    assert [entry.name for entry in tmp_path.iterdir()] == ["b"]


def test_a_bundle_that_was_loaded_where_it_lies_may_be_replaced(tmp_path):
    path = make_bundle(tmp_path / "b")
    (path / "prepared").mkdir()  # as the runtime leaves it
    make_bundle(path, version="2.0.0", overwrite=True)
    assert open_bundle(path).version == "2.0.0"
    assert not (path / "prepared").exists()


def test_a_directory_that_is_no_bundle_is_never_overwritten(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(BundleError, match="not a bundle"):
        make_bundle(tmp_path / "photos", overwrite=True)
    assert (tmp_path / "photos" / "cat.jpg").exists()


def test_a_store_or_a_file_is_never_overwritten(tmp_path):
    store = Store(tmp_path / "store")
    store.install(open_bundle(make_bundle(tmp_path / "b")))
    (tmp_path / "file").touch()
    for target in (store.root, tmp_path / "file"):
        with pytest.raises(BundleError, match="not a bundle"):
            make_bundle(target, overwrite=True)
    assert len(store.ls()) == 1


def test_an_empty_directory_is_a_good_target(tmp_path):
    (tmp_path / "b").mkdir()
    open_bundle(make_bundle(tmp_path / "b")).verify()


def test_a_failed_writer_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), BundleWriter(tmp_path / "b") as writer:
        writer.add_variant(make_record(writer, "board"), ARMV7)
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_writer_at_work_is_not_swept_by_another(tmp_path):
    with BundleWriter(tmp_path / "b") as first:
        record = make_record(first, "board")
        with BundleWriter(tmp_path / "b") as second:
            first.add_variant(record, ARMV7)
            first.finish()
            second.add_variant(make_record(second, "board"), ARMV7)
            with pytest.raises(BundleError, match="the bundle exists"):
                second.finish()
    open_bundle(tmp_path / "b").verify()


def refused(tmp_path, match, *profiles, **changes):
    with BundleWriter(tmp_path / "b") as writer, pytest.raises(BundleError, match=match):
        for profile in profiles or ("board",):
            writer.add_variant(make_record(writer, profile, **changes), ARMV7)
    assert list(tmp_path.iterdir()) == []


def test_a_writer_refuses_a_blob_it_does_not_have(tmp_path):
    blob = Blob(digest="sha256:" + "0" * 64, size=1)
    refused(tmp_path, blob.digest, files=(File(path="labels.txt", blob=blob),))


@pytest.mark.parametrize(
    "path", ["../up", "/etc/passwd", "a/../../b", "a\\b", "a\0b", "", "a//b", "./a", "a/"]
)
def test_a_writer_refuses_an_unsafe_path(tmp_path, path):
    with BundleWriter(tmp_path / "b") as writer:
        blob = writer.blobs.put([b"x"])
        record = make_record(writer, "board", files=(File(path=path, blob=blob),))
        with pytest.raises(BundleError, match="unsafe path"):
            writer.add_variant(record, ARMV7)


def test_a_writer_refuses_two_files_with_one_path(tmp_path):
    with BundleWriter(tmp_path / "b") as writer:
        record = make_record(writer, "board")
        with pytest.raises(BundleError, match=r"tokenizer\.json: two different files"):
            writer.add_variant(
                record, ARMV7, documents={"tokenizer.json": writer.blobs.put([b"other"])}
            )


@pytest.mark.parametrize("field", ["name", "version", "profile"])
@pytest.mark.parametrize("text", ["../x", "a/b", "", "a b", "-x", "x:y"])
def test_a_writer_refuses_names_that_are_unsafe_in_paths_and_tags(tmp_path, field, text):
    with BundleWriter(tmp_path / "b") as writer:
        record = msgspec.structs.replace(make_record(writer, "board"), **{field: text})
        with pytest.raises(BundleError, match=f"{field}: .* not allowed"):
            writer.add_variant(record, ARMV7)


def test_a_writer_refuses_a_profile_twice(tmp_path):
    refused(tmp_path, "already has this profile", "board", "board")


def test_a_writer_refuses_two_versions_in_one_bundle(tmp_path):
    with BundleWriter(tmp_path / "b") as writer:
        writer.add_variant(make_record(writer, "board"), ARMV7)
        with pytest.raises(BundleError, match="one version of one model"):
            writer.add_variant(make_record(writer, "x86-64", version="2.0.0"), AMD64)


def test_a_writer_refuses_a_bundle_without_variants(tmp_path):
    with BundleWriter(tmp_path / "b") as writer:
        refused_path = {"../up": writer.blobs.put([b"x"])}
        with pytest.raises(BundleError, match="unsafe path"):
            writer.add_variant(make_record(writer, "board"), ARMV7, documents=refused_path)
        with pytest.raises(BundleError, match="at least one variant"):
            writer.finish()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.needs("skopeo", "skopeo")
def test_skopeo_copies_a_bundle_with_all_digests(tmp_path):
    bundle = open_bundle(make_bundle(tmp_path / "b"))
    for target in (f"oci:{tmp_path / 'oci'}", f"dir:{tmp_path / 'dir'}"):
        skopeo("--all", f"oci:{bundle.path}:{bundle.version}", target)
    copy = open_bundle(tmp_path / "oci")
    copy.verify()
    assert copy.variants[0].report == bundle.variants[0].report
    assert copy.descriptor.digest == bundle.descriptor.digest
    assert [variant.digest for variant in copy.variants] == [v.digest for v in bundle.variants]
    assert blobs_of(bundle.path) <= {
        entry.name for entry in (tmp_path / "oci/blobs/sha256").iterdir()
    }
    layers = {layer.digest[7:] for v in bundle.variants for layer in v.manifest.layers}
    assert layers <= {entry.name for entry in (tmp_path / "dir").iterdir()}


@pytest.mark.needs("skopeo", "skopeo")
def test_one_variant_copied_by_skopeo_is_a_bundle(tmp_path):
    bundle = open_bundle(make_bundle(tmp_path / "b"))
    skopeo(
        "--override-arch=arm", "--override-variant=v7", f"oci:{bundle.path}", f"oci:{tmp_path}/one"
    )
    one = open_bundle(tmp_path / "one")
    one.verify()
    assert [variant.digest for variant in one.variants] == [bundle.variant("board").digest]


def skopeo(*arguments):
    policy = ["--insecure-policy"]  # signatures are not what is tested here
    program = shutil.which("skopeo")
    done = subprocess.run(
        [program, *policy, "copy", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
