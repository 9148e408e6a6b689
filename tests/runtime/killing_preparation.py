"""Kills a preparation at every one of its file-system calls in turn; the next use converges.

``python -m tests.runtime.killing_preparation DIR`` prints the number of kills. The parent
never loads the engine, so that every child starts it afresh.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from edge_sdk.bundle.reader import Variant, open_bundle
from tests.bundle.killing import killed

NEVER = sys.maxsize


def prepare(bundle: Path) -> None:
    """First use."""
    from edge_sdk.runtime import sessions

    sessions.open_graph(_variant(bundle), "main", 1, True)


def check(bundle: Path) -> None:
    """The next use computes the right thing over whole files, and leaves no others."""
    import numpy as np

    from edge_sdk.runtime import sessions
    from edge_sdk.runtime.prepared.artefact import read_index
    from tests.runtime.small_decoder import logits

    variant = _variant(bundle)
    session = sessions.open_graph(variant, "main", 1, True, verify=True)
    assert not any("loaded plainly" in note for note in session.notes), session.notes
    plain = sessions.open_graph(variant, "main", 1, True, prepare=False)
    np.testing.assert_array_equal(logits(session, variant), logits(plain, variant))
    [path] = bundle.glob("prepared/*/*/*.json")
    index = read_index(path)
    assert index is not None
    listed = {blob.digest.removeprefix("sha256:") for blob in index.blobs}
    found = {file.name for file in path.parent.iterdir() if file.suffix != ".stamps"}
    assert found == {"lock", path.name} | listed


def _variant(bundle: Path) -> Variant:
    return open_bundle(bundle).variants[0]


def main(folder: Path) -> None:
    """Kills until a child survives."""
    number, alive = 1, False
    while not alive:
        bundle = Path(shutil.copytree(folder / "bundle", folder / f"try-{number}"))
        alive = not killed(number, lambda bundle=bundle: prepare(bundle), "prepared")  # type: ignore[misc]
        assert not killed(NEVER, lambda bundle=bundle: check(bundle))  # type: ignore[misc]
        shutil.rmtree(bundle)
        number += 1
    print(number - 2)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
