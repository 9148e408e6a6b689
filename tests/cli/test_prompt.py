"""``edge-sdk run --prompt`` over a tiny decoder with random weights."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

import edge_sdk
from edge_sdk.cli.main import main
from tests.cli.conftest import COMMAND
from tests.generation import tiny
from tests.generation.endless import endless
from tests.runtime.bundles import linear


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return tiny.bundle(tmp_path_factory.mktemp("tiny") / "bundle")


def run(bundle: Path, *options: object) -> int:
    return main(["run", str(bundle), "--max-new-tokens", "12", *map(str, options)])


def answer(capsys, bundle: Path, *options: object):
    assert run(bundle, "--json", *options) == 0
    return json.loads(capsys.readouterr().out)


def test_answer_goes_to_stdout_and_its_figures_to_stderr(bundle, capsys):
    text = edge_sdk.load(bundle).generate("hi", max_new_tokens=12).read()
    assert run(bundle, "--prompt", "hi") == 0
    said = capsys.readouterr()
    assert said.out == text + "\n"
    assert "prompt 21 tokens (0 cached), answer 12 tokens, first after" in said.err


def test_json_is_one_object_with_text_tokens_and_stats(bundle, capsys):
    completion = edge_sdk.load(bundle).generate("hi", max_new_tokens=12)
    text = completion.read()
    found = answer(capsys, bundle, "--prompt", "hi")
    assert found["schema"] == "org.edge-sdk.run/1"
    assert (found["text"], tuple(found["tokens"])) == (text, completion.tokens)
    assert found["finish_reason"] == "length"
    stats = found["stats"]
    assert (stats["prompt_tokens"], stats["cached_tokens"], stats["new_tokens"]) == (21, 0, 12)
    assert stats["ttft_ms"] > 0
    assert stats["tokens_per_second"] > 0


def test_every_piece_is_shown_as_it_comes(bundle, monkeypatch):
    shown = []

    class Terminal(io.StringIO):
        def flush(self):
            shown.append(self.getvalue())

    monkeypatch.setattr(sys, "stdout", Terminal())
    assert run(bundle, "--prompt", "hi") == 0
    lengths = [len(text) for text in shown]
    assert lengths == sorted(lengths)
    assert len(set(lengths)) > 6


def test_dash_reads_the_prompt_from_stdin(bundle, capsys, monkeypatch):
    expected = answer(capsys, bundle, "--prompt", "hi\nthere")["text"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("hi\nthere\n"))
    assert answer(capsys, bundle, "--prompt", "-")["text"] == expected


def test_raw_prompt_is_continued_without_a_template(bundle, capsys):
    found = answer(capsys, bundle, "--prompt", "hi", "--raw")
    assert found["stats"]["prompt_tokens"] == len("hi")


def test_model_without_a_template_continues_the_prompt(tmp_path, capsys):
    generation = replace(tiny.GENERATION, chat_template="")
    found = answer(capsys, tiny.bundle(tmp_path / "base", generation=generation), "--prompt", "hi")
    assert found["stats"]["prompt_tokens"] == len("hi")


def test_system_text_comes_before_the_prompt(bundle, capsys):
    found = answer(capsys, bundle, "--prompt", "hi", "--system", "Be brief.")
    plain = answer(capsys, bundle, "--prompt", "hi")
    turn = len("system\nBe brief.\n") + 2  # and two special tokens
    assert found["stats"]["prompt_tokens"] == plain["stats"]["prompt_tokens"] + turn


def test_seed_repeats_the_draws(bundle, capsys):
    def drawn(seed: int) -> list[int]:
        options = ("--temperature", 1, "--top-k", 40, "--top-p", 0.95, "--min-p", 0.001)
        return answer(capsys, bundle, "--prompt", "hi", *options, "--seed", seed)["tokens"]

    assert drawn(1) == drawn(1) != drawn(2)


def test_stop_strings_end_the_answer(bundle, capsys):
    whole = answer(capsys, bundle, "--prompt", "hi")["text"]
    stop = whole[3:5]
    found = answer(capsys, bundle, "--prompt", "hi", "--stop", "never", "--stop", stop)
    assert found["text"] == whole[: whole.index(stop)]
    assert found["finish_reason"] == "stop"


def test_repetition_penalty_reaches_the_model(bundle, capsys):
    plain = answer(capsys, bundle, "--prompt", "hi")["tokens"]
    varied = answer(capsys, bundle, "--prompt", "hi", "--repetition-penalty", 50)["tokens"]
    assert len(set(plain)) < len(plain)
    assert len(set(varied)) == len(varied)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--temperature", -1), "temperature: -1.0 is not a number from 0"),
        (("--top-p", 0), "top_p: 0.0 is not"),
        (("--max-new-tokens", 0), "max_new_tokens"),
        (("--adapter", "pirate"), "pirate"),
        (("--context", 0), "context"),
        (("--stop", ""), "stop"),
        (("--raw", "--system", "x"), "--raw takes no --system"),
        (("--prompt", "x" * 300), "tokens; the context of 128"),
        (("--prompt", "", "--raw"), "the prompt is empty"),
        (("--prompt", "\udcff"), "prompt: is not UTF-8"),
        (("--system", "\udcff"), "prompt: is not UTF-8"),
    ],
)
def test_what_is_wrong_is_bad_input(bundle, capsys, options, said):
    assert run(bundle, "--prompt", "hi", *options) == 2
    found = capsys.readouterr()
    assert said in found.err
    assert found.out == ""


def test_stdin_that_is_no_text_is_bad_input(bundle):
    done = subprocess.run(
        [*COMMAND, "run", bundle, "--prompt", "-"], input=b"\xff\xfe", capture_output=True
    )
    assert done.returncode == 2
    assert b"prompt: is not UTF-8" in done.stderr


def test_prompt_for_a_model_that_generates_nothing_is_bad_input(tmp_path, capsys):
    assert run(linear(tmp_path / "bundle"), "--profile", "here", "--prompt", "hi") == 2
    assert "does not generate text" in capsys.readouterr().err


def test_ctrl_c_ends_the_answer_and_keeps_what_was_said(tmp_path):
    command = [*COMMAND, "run", endless(tmp_path / "endless"), "--prompt", "hi"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        said = process.stdout.read(20)
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert len(said) == 20
    assert rest.endswith(b"\n")
    assert b"interrupted" in errors
    assert b"Traceback" not in errors


def test_reader_that_goes_away_is_no_error(tmp_path):
    command = [*COMMAND, "run", endless(tmp_path / "endless"), "--prompt", "hi"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(5)
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(timeout=60) == 0
    assert b"Traceback" not in errors
