"""What configuration files say of writing, as the source framework understands them."""

from __future__ import annotations

import pytest

from converters.seq2seq.settings import beams, read_decoding, undone

pytestmark = pytest.mark.converts

IDS = {"decoder_start_token_id": 2, "eos_token_id": 1}


def test_configuration_counts_where_no_generation_settings_are():
    config = {**IDS, "no_repeat_ngram_size": 3, "forced_eos_token_id": 1, "num_beams": 4}
    found = read_decoding(config, {}, "model")
    assert (found.no_repeat_ngram, found.forced_eos, beams(config, {})) == (3, True, 4)
    found = read_decoding(config, {"_from_model_config": True, "min_length": 2}, "model")
    assert (found.no_repeat_ngram, found.min_length) == (3, 2)


def test_generation_settings_replace_those_of_the_configuration_all_but_tokens():
    config = {**IDS, "no_repeat_ngram_size": 3, "max_length": 9, "num_beams": 4}
    generation = {"min_length": 2}
    found = read_decoding(config, generation, "model")
    assert (found.no_repeat_ngram, found.max_length, found.min_length) == (0, None, 2)
    assert (found.start, found.eos, beams(config, generation)) == ((2,), (1,), 1)


def test_numbers_of_new_tokens_count_behind_the_start():
    found = read_decoding({}, {**IDS, "min_new_tokens": 3, "max_new_tokens": 5}, "model")
    assert (found.min_length, found.max_length) == (4, 6)


def test_bad_words_are_barred_but_not_the_end():
    found = read_decoding({}, {**IDS, "bad_words_ids": [[5], [1], [6, 7]]}, "model")
    assert (found.suppress, found.bad_words) == ((5,), ((6, 7),))


def test_forced_first_token_is_part_of_the_start():
    found = read_decoding({}, {**IDS, "forced_bos_token_id": 4}, "model")
    assert (found.start, found.forced) == ((2, 4), 1)


def test_penalty_and_sampling_are_the_model_s():
    found = read_decoding({}, {**IDS, "repetition_penalty": 1.2}, "model").sampling
    assert (found.repetition_penalty, found.temperature) == (1.2, 0)
    assert read_decoding({}, {**IDS, "do_sample": True}, "model").sampling.temperature == 1


def test_settings_that_are_not_applied_are_named():
    generation = {**IDS, "guidance_scale": 1.0, "encoder_repetition_penalty": 1.5}
    assert undone({}, generation) == ["encoder_repetition_penalty = 1.5"]
