"""``edge-sdk run``: one call of a bundle, on arrays, text, a picture, sound or a prompt."""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import msgspec

from edge_sdk.bundle import files
from edge_sdk.cli import generation, tasks
from edge_sdk.cli.arguments import thread_count
from edge_sdk.cli.output import emit_json, note, table
from edge_sdk.errors import DataError, InputError, WorkError
from edge_sdk.runtime.generation.stats import Stats
from edge_sdk.runtime.tasks.results import Answer, Classification, Entity, Filling, Word

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge_sdk.runtime.generation.completion import Completion
    from edge_sdk.runtime.inputs import Array
    from edge_sdk.runtime.model import Model


EPILOG = """\
examples:
  edge-sdk run digits.bundle --input x.npz --output y.npz
  edge-sdk run minilm.bundle --text "a text"
  edge-sdk run reader.bundle --text "a long text" --question "what about it?"
  edge-sdk run birds.bundle --image bird.jpg --top 3
  edge-sdk run speech.bundle --audio order.wav
  edge-sdk run assistant.bundle --prompt "What is the boiler's set-point?"
  edge-sdk run assistant.bundle --prompt - --temperature 0.7 --seed 1 < question.txt

An array in X.npz is named like the input it feeds. One of the input's rank is one
call; one of rank + 1 is a list of samples (the steps of one sequence, if the model
has recurrent states), and the outputs get the same leading axis.

A text is tagged, filled in at its gaps, classified or embedded, as the variant is made
for it; a picture is classified; sound is classified or transcribed.

The answer to a prompt is streamed to stdout, its figures go to stderr. The prompt is
one user's turn in the model's chat template; a model without one, or --raw, continues it.
"""


class OutputInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One output array of a run."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """What ``edge-sdk run --json`` prints.

    Attributes:
        name: The model's name.
        version: The model's version.
        profile: Device profile of the variant that ran.
        seconds: Time of the run itself, loading excluded.
        outputs: The arrays written (``--input``).
        output_file: Where they were written.
        embedding: The text's vector, for a variant that embeds.
        classes: Best classes of the text, picture or sound, for a variant that classifies.
        entities: The text's labelled stretches, for a variant that tags.
        answers: Best answers to the question.
        fillings: Of each of the text's gaps, what may stand in it.
        text: The answer (``--prompt``), without what ended it; what was said (``--audio``).
        words: The words said, in time, where the model tells.
        tokens: The answer's tokens.
        finish_reason: Why it ended: ``stop``, ``length`` or ``cancelled``.
        stats: What it took.
        notes: Where this machine differs from what the variant asks for.
    """

    schema: str = "org.edge-sdk.run/1"
    name: str
    version: str
    profile: str
    seconds: float
    outputs: tuple[OutputInfo, ...] = ()
    output_file: str | None = None
    embedding: tuple[float, ...] | None = None
    classes: tuple[Classification, ...] | None = None
    entities: tuple[Entity, ...] | None = None
    answers: tuple[Answer, ...] | None = None
    fillings: tuple[tuple[Filling, ...], ...] | None = None
    text: str | None = None
    words: tuple[Word, ...] | None = None
    tokens: tuple[int, ...] | None = None
    finish_reason: str | None = None
    stats: Stats | None = None
    notes: tuple[str, ...] = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.epilog = EPILOG
    parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="bundle, or STORE#name:version")
    parser.add_argument("--profile", default="auto", help="variant (default: this machine's)")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--input", metavar="X.npz", type=Path, help="one array per model input")
    what.add_argument("--text", help="text to tag, to fill in, to classify or to embed")
    what.add_argument("--image", metavar="FILE", type=Path, help="picture to classify")
    what.add_argument("--audio", metavar="FILE.wav", type=Path, help="sound, or what is said in it")
    what.add_argument("--prompt", metavar="TEXT", help="what to answer; - reads it from stdin")
    parser.add_argument("--question", metavar="TEXT", help="what --text shall answer")
    parser.add_argument("--language", help="what --audio is spoken in (default: the likeliest)")
    parser.add_argument("--raw", action="store_true", help="continue the prompt as it is")
    parser.add_argument("--output", metavar="Y.npz", type=Path, help="where the outputs go")
    parser.add_argument(
        "--top", type=int, default=5, help="classes or answers to print (default 5)"
    )
    parser.add_argument("--threads", type=thread_count, help="threads (default: the profile's)")
    parser.add_argument("--memory-limit", metavar="SIZE", help="refuse to exceed it, as in 256MiB")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    generation.add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Loads the variant, runs it, and writes or prints what comes out."""
    if bool(args.input) != bool(args.output):
        raise InputError("--input X.npz and --output Y.npz belong together")
    tasks.check(args)
    if args.raw and args.system is not None:
        raise InputError("--raw takes no --system", remedy="write it into the prompt")
    prompt = None if args.prompt is None else generation.read_prompt(args.prompt)
    from edge_sdk.runtime.opening import load

    arrays = read_npz(args.input) if args.input else {}
    model = load(
        args.bundle,
        args.profile,
        args.memory_limit,
        context=args.context,
        streams=1,
        threads=args.threads,
    )
    for line in model.notes:
        note(line)
    if model.record.decoding is not None and args.text is not None:
        prompt = args.text
    if prompt is not None:
        return _run_prompt(model, prompt, args)
    result = _run_arrays(model, arrays, args.output) if args.input else _run_task(model, args)
    if args.json:
        emit_json(result)
    else:
        print(_for_people(result))
    return 0


def read_npz(path: Path) -> dict[str, Array]:
    """All arrays of an ``.npz``; pickled objects are refused.

    Raises:
        DataError: It cannot be read.
    """
    import numpy as np

    try:
        with path.open("rb") as file:
            found = np.load(file, allow_pickle=False)
            if isinstance(found, np.ndarray):
                raise ValueError("it is a single array without a name")
            return {name: found[name] for name in found.files}
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"cannot be read: {error}", where=str(path), remedy="write it with numpy.savez"
        ) from error


def write_npz(path: Path, arrays: Mapping[str, Array]) -> None:
    """Writes an ``.npz`` that is complete or absent.

    Raises:
        WorkError: An output is no array, or the file system refused.
    """
    import numpy as np

    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise WorkError(
                f"is a {type(array).__name__}, which an .npz cannot hold",
                where=f"output {name!r}",
                remedy="run the model from Python",
            )
    with files.writing(path), files.temporary(path.parent) as file:
        # Not numpy.savez, which takes no array of the name "file".
        with zipfile.ZipFile(file, "w") as archive:
            for name, array in arrays.items():
                # An engine's strings are objects; as such they would be pickled.
                plain = array.astype(str) if array.dtype.hasobject else array
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, plain, allow_pickle=False)
        files.commit(file, path)


def _run_arrays(model: Model, arrays: Mapping[str, Array], output: Path) -> RunResult:
    from edge_sdk.runtime.samples import run_arrays

    start = perf_counter()
    found = run_arrays(model, arrays)
    seconds = perf_counter() - start
    write_npz(output, found)
    outputs = tuple(
        OutputInfo(name=name, dtype=str(array.dtype), shape=array.shape)
        for name, array in found.items()
    )
    return _result(model, seconds=seconds, outputs=outputs, output_file=str(output))


def _run_task(model: Model, args: argparse.Namespace) -> RunResult:
    start = perf_counter()
    found = tasks.run_task(model, args)
    return _result(model, seconds=perf_counter() - start, **found)


def _run_prompt(model: Model, prompt: str, args: argparse.Namespace) -> int:
    from edge_sdk.runtime.generation.chat_template import Message

    system = generation.instructions(args.system)
    asked = [*system, Message("user", prompt)] if system else prompt
    start = perf_counter()
    with model.generate(asked, raw=args.raw, **generation.settings(args)) as completion:
        finished = generation.show(completion, silent=args.json)
        seconds = perf_counter() - start
        if args.json:
            emit_json(_answer(model, completion, seconds))
        else:
            note(generation.figures(completion))
    return 0 if finished else generation.INTERRUPTED


def _answer(model: Model, completion: Completion, seconds: float) -> RunResult:
    return _result(
        model,
        seconds=seconds,
        text=completion.text,
        tokens=completion.tokens,
        finish_reason=completion.finish_reason,
        stats=completion.stats,
    )


def _result(model: Model, **fields: Any) -> RunResult:
    record = model.record
    return RunResult(
        name=record.name,
        version=record.version,
        profile=record.profile,
        notes=model.notes,
        **fields,
    )


def _for_people(result: RunResult) -> str:
    if result.classes is not None:
        return tasks.classes_table(result.classes)
    if result.entities is not None:
        return tasks.entities_table(result.entities)
    if result.answers is not None:
        return tasks.answers_table(result.answers)
    if result.fillings is not None:
        return tasks.fillings_table(result.fillings)
    if result.text is not None:
        return "\n".join(
            [result.text, *([tasks.words_table(result.words)] if result.words else [])]
        )
    if result.embedding is not None:
        return " ".join(f"{value:.6g}" for value in result.embedding)
    rows = [(o.name, o.dtype, "x".join(map(str, o.shape)) or "scalar") for o in result.outputs]
    head = table(("output", "dtype", "shape"), rows)
    return f"{head}\nwritten to {result.output_file} in {result.seconds * 1e3:.3g} ms"
