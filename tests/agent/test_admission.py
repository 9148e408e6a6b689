"""What may be installed."""

from __future__ import annotations

import pytest

from edge_sdk.agent.admission import Candidate, Rules, admit
from edge_sdk.agent.journal import Release
from edge_sdk.errors import AdmissionError

RUNNING = Release(digest="old", version="1.9.0")


def refusal(candidate: Candidate, rules: Rules) -> str:
    with pytest.raises(AdmissionError) as error:
        admit(candidate, rules)
    return str(error.value)


def test_what_was_asked_for_is_admitted():
    admit(Candidate("m", "new", "2.0.0", "m"), Rules("new", "2.0.0", running=RUNNING))
    admit(Candidate("m", "new", "1.10.0", "m"), Rules("new", "1.10.0", running=RUNNING))
    admit(Candidate("m", "new", "0.1.0"), Rules("new", "0.1.0"))


def test_another_digest_or_version_is_refused():
    assert "is other instead of new" in refusal(
        Candidate("m", "other", "2.0.0"), Rules("new", "2.0.0")
    )
    assert "calls itself 3.0.0" in refusal(Candidate("m", "new", "3.0.0"), Rules("new", "2.0.0"))


@pytest.mark.parametrize("version", ["1.8.9", "1.9.0-rc.1", "0.99.0"])
def test_an_older_version_needs_leave(version):
    candidate = Candidate("m", "new", version)
    said = refusal(candidate, Rules("new", version, running=RUNNING))
    assert "older than 1.9.0" in said
    assert "--allow-older" in said
    admit(candidate, Rules("new", version, allow_older=True, running=RUNNING))


def test_a_name_and_version_in_use_is_not_taken_over():
    candidate = Candidate("m", "new", "2.0.0", "lookup")
    said = refusal(candidate, Rules("new", "2.0.0", kept={("lookup", "2.0.0"): "old"}))
    assert "lookup 2.0.0 is in use" in said
    admit(candidate, Rules("new", "2.0.0", kept={("lookup", "2.0.0"): "new"}))
    admit(candidate, Rules("new", "2.0.0", kept={("other", "2.0.0"): "old"}))
