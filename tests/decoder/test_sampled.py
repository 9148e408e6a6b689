"""Text that a model writes itself."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from converters.decoder.sampled import LENGTH, sample_documents
from converters.decoder.source import DecoderSource
from tests.decoder.speakers import CONTEXT, speaker

pytestmark = pytest.mark.converts


def with_generation(**changes: object) -> DecoderSource:
    source = speaker()
    return replace(source, generation=msgspec.structs.replace(source.generation, **changes))


def test_model_writes_the_same_text_every_time() -> None:
    one, two = (sample_documents(speaker(), 2000, threads=1) for _ in range(2))
    assert [d.tolist() for d in one] == [d.tolist() for d in two]
    assert sum(map(len, one)) >= 2000
    assert len({tuple(document.tolist()) for document in one}) == len(one)


def test_documents_are_as_long_as_the_context_allows() -> None:
    assert {len(d) for d in sample_documents(speaker(), 100, threads=1)} == {min(LENGTH, CONTEXT)}


def test_documents_begin_with_bos_and_end_with_eos() -> None:
    ends = tuple(range(3, 20))
    documents = sample_documents(with_generation(bos=2, eos=ends), 400, threads=1)
    assert {document[0] for document in documents} == {2}
    ended = [d for d in documents if len(d) < CONTEXT]
    assert ended
    for document in documents:
        assert not set(document[1:-1].tolist()) & set(ends)
    assert {int(document[-1]) for document in ended} <= set(ends)


def test_text_goes_on_after_a_bos_that_is_also_eos() -> None:
    """As GPT-2's one special token is both."""
    documents = sample_documents(with_generation(bos=2, eos=(2,)), 200, threads=1)
    assert all(len(document) > 1 for document in documents)
