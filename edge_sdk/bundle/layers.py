"""A variant record as the layers of its manifest: which blob under which path.

``model/`` is a folder in which an ONNX graph finds its weights: they are its
siblings, named by their bare hex digest, as in ``blobs/sha256`` itself. A tool
that knows ModelPack but not this product can unpack and run it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from edge_sdk.bundle import oci
from edge_sdk.bundle.blobs import hex_of
from edge_sdk.bundle.oci import Descriptor
from edge_sdk.bundle.record import ArrayRef, Blob, VariantRecord
from edge_sdk.errors import BundleError

RECORD_FILE = "variant.json"

Layer = tuple[str, str, Blob]
"""Media type, path and blob."""


def layers_of(
    record: VariantRecord, record_blob: Blob, documents: Mapping[str, Blob]
) -> tuple[Descriptor, ...]:
    """The layers of a variant's manifest, each path once.

    Args:
        record: The variant.
        record_blob: The encoded record.
        documents: Path -> blob of files for people (model card, licence).

    Raises:
        BundleError: A path is unsafe, or two different blobs claim one.
    """
    found: dict[str, Descriptor] = {}
    for media_type, path, blob in _layers(record, record_blob, documents):
        oci.check_path(path, where=f"{record.profile}: {oci.FILEPATH}")
        layer = Descriptor(
            media_type=media_type,
            digest=blob.digest,
            size=blob.size,
            annotations={oci.FILEPATH: path},
        )
        if found.setdefault(path, layer).blob != blob:
            raise BundleError("two different files have this path", where=path)
    return tuple(found.values())


def config_of(record: VariantRecord, layers: Iterable[Descriptor]) -> oci.ModelConfig:
    """The ModelPack config of a variant: no clock, no host, so it is reproducible."""
    licence = record.provenance.licence
    return oci.ModelConfig(
        descriptor=oci.ModelDescriptor(
            name=record.name, version=record.version, licenses=(licence,) if licence else ()
        ),
        modelfs=oci.ModelFs(type="layers", diff_ids=tuple(layer.digest for layer in layers)),
        config=oci.ModelFormat(format=record.graphs[0].format, quantization=record.recipe.name),
    )


def _layers(
    record: VariantRecord, record_blob: Blob, documents: Mapping[str, Blob]
) -> Iterator[Layer]:
    yield oci.WEIGHT_CONFIG, RECORD_FILE, record_blob
    for graph in record.graphs:
        kind = oci.WEIGHT_CONFIG if graph.format == "onnx" else oci.WEIGHT
        yield from _parts(kind, f"model/{graph.name}.{graph.format}", graph.parts)
    for graph in record.graphs:
        for blob in graph.weights:
            yield oci.WEIGHT, f"model/{hex_of(blob.digest)}", blob
    for adapter in record.adapters:
        yield from _parts(oci.WEIGHT, f"adapters/{adapter.name}", adapter.parts)
    for file in record.files:
        yield oci.WEIGHT_CONFIG, file.path, file.blob
    adapted = {blob for adapter in record.adapters for blob in adapter.parts}
    for array in _arrays(record):
        if array.blob in adapted:
            continue
        yield oci.WEIGHT_CONFIG, f"arrays/{hex_of(array.blob.digest)}", array.blob
    for path, blob in sorted(documents.items()):
        yield oci.DOC, path, blob


def _parts(media_type: str, path: str, parts: tuple[Blob, ...]) -> Iterator[Layer]:
    if len(parts) == 1:
        yield media_type, path, parts[0]
        return
    for number, blob in enumerate(parts):
        yield media_type, f"{path}.{number:05d}", blob


def _arrays(record: VariantRecord) -> Iterator[ArrayRef]:
    yield from (state.initial for state in record.states if state.initial)
    for case in record.golden:
        yield from case.inputs.values()
        yield from case.outputs.values()
