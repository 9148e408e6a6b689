"""Rewrites the documents of a bundle with digests that are right again: a careful attacker."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Json = dict[str, Any]


def forge(
    path: Path,
    *,
    layout: Callable[[Json], None] | None = None,
    top: Callable[[Json], None] | None = None,
    index: Callable[[Json], None] | None = None,
    manifest: Callable[[Json], None] | None = None,
    record: Callable[[Json], None] | None = None,
) -> None:
    """Applies edits in place to the documents on the way to the first variant."""
    top_json = json.loads((path / "index.json").read_text())
    index_json = _load(path, top_json["manifests"][0])
    manifest_json = _load(path, index_json["manifests"][0])
    if record:
        layer = manifest_json["layers"][0]
        record_json = _load(path, layer)
        _edit(record, record_json)
        _store(path, layer, record_json)
    _edit(manifest, manifest_json)
    _store(path, index_json["manifests"][0], manifest_json)
    _edit(index, index_json)
    _store(path, top_json["manifests"][0], index_json)
    _edit(top, top_json)
    (path / "index.json").write_text(json.dumps(top_json))
    if layout:
        layout_json = json.loads((path / "oci-layout").read_text())
        _edit(layout, layout_json)
        (path / "oci-layout").write_text(json.dumps(layout_json))


def flip(path: Path, position: int = 0) -> None:
    """Flips one bit of a file."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def blob_file(path: Path, digest: str) -> Path:
    """The file of a blob."""
    return path / "blobs" / "sha256" / digest.removeprefix("sha256:")


def _edit(edit: Callable[[Json], None] | None, document: Json) -> None:
    if edit:
        before = json.dumps(document)
        edit(document)
        assert json.dumps(document) != before, "the edit changed nothing"


def _load(path: Path, descriptor: Json) -> Json:
    return json.loads(blob_file(path, descriptor["digest"]).read_text())


def _store(path: Path, descriptor: Json, document: Json) -> None:
    data = json.dumps(document).encode()
    descriptor["digest"] = "sha256:" + hashlib.sha256(data).hexdigest()
    descriptor["size"] = len(data)
    blob_file(path, descriptor["digest"]).write_bytes(data)
