"""Runs on the emulated board: ``compare.py FOLDER`` prepares small decoders and says what came out.

One JSON object per decoder: layout id, how many weights were prepared, notes of the
first and of the next session, and a digest of the logits plainly, first and next.
"""

from __future__ import annotations

import json
import sys
from hashlib import sha256
from pathlib import Path

from edge_sdk.bundle.reader import open_bundle
from edge_sdk.runtime.engine import SessionOptions
from edge_sdk.runtime.engines.onnx import OnnxEngine
from edge_sdk.runtime.prepared import open_graph
from edge_sdk.runtime.prepared.artefact import Place
from edge_sdk.runtime.prepared.packing import layout_id
from tests.runtime.small_decoder import decoder, logits

FORMS = {
    "int4-b32": {"block": 32, "hidden": 64},
    "int4-b128": {"block": 128, "hidden": 256},
    "int4-b128-not-full": {"block": 128, "hidden": 160},
    "int4-b32-zeros": {"block": 32, "hidden": 64, "zero_points": True},
    "int8-b32": {"bits": 8},
}
# Golden logits travel between classes of CPUs here, whose arithmetic differs by percents.
TOLERANCE = 0.2


def main(folder: Path) -> None:
    """Prepares and compares each form of weights."""
    for name, form in FORMS.items():
        path = folder / name
        if not path.exists():
            decoder(path, tolerance=TOLERANCE, **form)  # type: ignore[arg-type]
        variant = open_bundle(path).variants[0]
        graph, options = variant.record.graphs[0], SessionOptions()
        plain, first, second = (
            open_graph(OnnxEngine(), graph, variant, options, prepare=prepare)
            for prepare in (False, True, True)
        )
        layout = layout_id(options)
        index = Place.of(variant, graph, layout).find()
        found = {
            "form": name,
            "layout": layout,
            "prepared": len(index.weights) if index else 0,
            "notes": [list(session.notes) for session in (first, second)],
            "logits": [
                sha256(logits(session, variant).tobytes()).hexdigest()
                for session in (plain, first, second)
            ],
        }
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
