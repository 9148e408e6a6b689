from __future__ import annotations

import numpy as np

from edge_sdk.bundle.reader import open_bundle
from edge_sdk.runtime import sessions
from edge_sdk.runtime.prepared import opening
from tests.runtime.small_decoder import decoder, logits


def test_engine_of_an_untested_version_loads_plainly_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "TESTED", ("0.9",))
    variant = open_bundle(decoder(tmp_path / "bundle")).variants[0]
    plain = sessions.open_graph(variant, "main", 1, True, prepare=False)
    session = sessions.open_graph(variant, "main", 1, True)
    assert plain.notes == ()
    assert "than 0.9, which this was tested with" in session.notes[0]
    np.testing.assert_array_equal(logits(session, variant), logits(plain, variant))
    assert not (tmp_path / "bundle" / "prepared").exists()
