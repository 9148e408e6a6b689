"""Two graphs out of three: they compute what the export computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from converters.materialize import open_path
from converters.seq2seq.forced import greedy, network_of
from converters.seq2seq.source import Seq2SeqSource
from edge_sdk.errors import SourceError
from tests.seq2seq.exports import read
from tests.seq2seq.inputs import BANDS, FRAMES, NEW_TOKENS, TEXTS, features, written

pytestmark = pytest.mark.converts
NAMES = ("t5", "bart", "marian", "whisper")


@pytest.fixture(scope="module", params=NAMES)
def source(request, tmp_path_factory) -> Seq2SeqSource:
    return read(request.param, tmp_path_factory.mktemp(request.param))


def network(source: Seq2SeqSource):
    encoder, decoder = open_path(source.encoder.path), open_path(source.decoder.path)
    return network_of(encoder, decoder, source.decoder.states)


def inputs(source: Seq2SeqSource, rows: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    if source.name == "whisper":
        return {"input_features": rng.normal(size=(rows, BANDS, FRAMES)).astype(np.float32)}
    mask = np.ones((rows, 7), np.int64)
    mask[1:, 5:] = 0
    return {"input_ids": rng.integers(3, 28, (rows, 7)), "attention_mask": mask}


def exported(source: Seq2SeqSource, feeds: dict[str, np.ndarray], tokens: np.ndarray):
    """Logits by the export's own encoder and its decoder without past."""
    encoder, decoder = (
        open_path(source.path / f"{name}_model.onnx") for name in ("encoder", "decoder")
    )
    hidden = encoder.run(feeds)["last_hidden_state"]
    given = {"input_ids": tokens, "encoder_hidden_states": hidden}
    if "attention_mask" in feeds:
        given["encoder_attention_mask"] = feeds["attention_mask"]
    return decoder.run(given)["logits"]


def test_logits_are_those_of_the_export(source):
    feeds, tokens = inputs(source, 2), np.array([[4, 9, 12, 20], [4, 5, 6, 7]])
    encoder, decoder = open_path(source.encoder.path), open_path(source.decoder.path)
    read_ = {k.replace("present", "past_key_values"): v for k, v in encoder.run(feeds).items()}
    shared = {k: v for k, v in feeds.items() if k in {spec.name for spec in decoder.inputs}}
    past = {
        spec.name: np.zeros((2, spec.shape[1], 0, spec.shape[3]), np.float32)
        for spec in decoder.inputs
        if ".decoder." in spec.name
    }
    found = decoder.run({**read_, **shared, **past, "decoder_input_ids": tokens})["logits"]
    np.testing.assert_allclose(found, exported(source, feeds, tokens), atol=1e-4)


def test_tokens_in_any_cut_give_the_same_logits(source):
    net, feeds = network(source), inputs(source, 1)
    tokens = [4, 9, 12, 20, 6]
    whole = net.write(net.read(feeds), 5).append(tokens)
    np.testing.assert_allclose(whole, exported(source, feeds, np.array([tokens]))[0], atol=1e-4)
    for cut in (1, 3):
        output = net.write(net.read(feeds), 5)
        parts = [output.append(tokens[i : i + cut]) for i in range(0, 5, cut)]
        np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-4)


def test_greedy_writes_what_the_source_framework_writes(source):
    net, decoding = network(source), source.decoding
    expected = written(source.name)
    if source.name == "whisper":
        found = [greedy(net, decoding, {"input_features": f[None]}, NEW_TOKENS) for f in features()]
        assert [drawn for _, drawn in found] == expected[2::3]  # where no language is named
        return
    from converters.seq2seq.pairs import open_tokenizer

    for text, tokens in zip(TEXTS, expected, strict=True):
        ids = np.array([open_tokenizer(source).encode(text).ids])
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        start, drawn = greedy(net, decoding, feeds, len(tokens) - len(decoding.start))
        assert [*start, *drawn] == tokens


def test_settings_are_those_of_the_source(tmp_path):
    t5 = read("t5", tmp_path / "t5").decoding
    assert (t5.start, t5.eos, t5.context) == ((0,), (1,), 64)
    bart = read("bart", tmp_path / "bart").decoding
    assert (bart.start, bart.no_repeat_ngram, bart.min_length) == ((1, 3), 2, 5)
    assert read("marian", tmp_path / "marian").decoding.suppress == (0,)
    whisper = read("whisper", tmp_path / "whisper").decoding
    assert whisper.languages == {"en": 5, "de": 6}
    assert (whisper.start, whisper.end_of_start, whisper.max_length) == ((4,), (3,), 24)
    assert (whisper.suppress, whisper.begin_suppress) == ((20, 21), (22, 1))


def test_search_with_several_beams_is_named_as_what_is_left_out(tmp_path):
    from tests.seq2seq.fixtures.archive import unpack
    from tests.seq2seq.inputs import FOLDER

    folder = unpack(FOLDER / "t5.tar.xz", tmp_path / "export")
    settings = folder / "generation_config.json"
    settings.write_text(settings.read_text().replace("{", '{"num_beams": 4,', 1))
    source = reread(folder, tmp_path)
    assert source.notes == ("greedy, where the source's settings search 4 beams",)


def test_missing_file_of_an_export_is_named(tmp_path):
    from tests.seq2seq.fixtures.archive import unpack
    from tests.seq2seq.inputs import FOLDER

    folder = unpack(FOLDER / "t5.tar.xz", tmp_path / "export")
    (folder / "decoder_model.onnx").unlink()
    with pytest.raises(SourceError, match="no such file") as caught:
        reread(folder, tmp_path)
    assert caught.value.where == str(folder / "decoder_model.onnx")


def reread(folder: Path, work: Path) -> Seq2SeqSource:
    from converters.seq2seq.source import read_export

    return read_export(folder, work / "made", path=folder, name="t5", digest="sha256:" + "0" * 64)
