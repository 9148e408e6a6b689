"""The toolchain ``hugging-face``: Hugging Face folders and ``torch.export`` programs to ONNX."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from traceback import extract_tb
from typing import Any

# Before any of the libraries is imported: everything is on disk, nothing is fetched.
os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "0"}

Progress = Callable[[str], None]
Json = dict[str, Any]

TOLERANCE = 1e-3
# What torch's exporter is used for where optimum does not know a model, and what it answers.
HEADS = {
    "feature-extraction": "AutoModel",
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "fill-mask": "AutoModelForMaskedLM",
    "image-classification": "AutoModelForImageClassification",
}
ANSWERS = ("logits", "start_logits", "end_logits", "last_hidden_state")


def export(request: Json, progress: Progress) -> Json:
    """Exports a model and what belongs to it into a new folder.

    Args:
        request: ``model`` (folder), ``out`` (folder) and ``task`` (as optimum names it).
        progress: Told how far it is.

    Returns:
        ``graphs`` (files in ``out``), or ``refused`` (why) with ``supported``, or with ``where``
        and ``remedy``.
    """
    _quiet()
    fresh = _Fresh()
    import optimum.exporters.onnx.model_configs  # noqa: F401  # registers what it can export
    from optimum.exporters.tasks import TasksManager
    from transformers import AutoConfig

    model, out, task = Path(request["model"]), Path(request["out"]), str(request["task"])
    kinds = sorted(TasksManager.get_supported_model_type_for_task(task, "onnx"))
    try:
        config = AutoConfig.from_pretrained(model)
    except (KeyError, ValueError) as error:  # of a kind, or with code, that transformers lacks
        said = re.split(r"(?<=[.!?])\s", str(error))[0]
        return {"refused": f"transformers cannot read it: {said}", "supported": kinds}
    try:
        if config.model_type in kinds:
            progress(f"exporting {config.model_type} for {task} with optimum")
            _with_optimum(model, out, task, config)
        else:
            progress(
                f"exporting {config.model_type} for {task} with torch, as optimum does not know it"
            )
            if complaint := _with_torch(model, out, task, config):
                said = f"{config.model_type!r} has no export for {task} in optimum, and {complaint}"
                return {"refused": said, "supported": kinds}
        if missing := fresh.weights():
            return {
                "refused": f"its files have no weights for {', '.join(missing)}",
                "where": str(model),
                "remedy": "give the model that was trained for this task, or another --task",
            }
        progress("reading the tokenizer")
        _tokenizer(model, out)
        _modules(model, out)
    except Exception as error:  # noqa: BLE001  # models and exporters fail in every way
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
        if _while_loading(error):
            again = "download all files of the model again, at one revision"
            return {"refused": f"cannot be loaded: {said}", "where": str(model), "remedy": again}
        instead = "export it yourself, to ONNX or with torch.export, and give that file"
        return {"refused": f"its export for {task} fails: {said}", "remedy": instead}
    return {"graphs": sorted(path.name for path in out.glob("*.onnx"))}


def export_program(request: Json, progress: Progress) -> Json:
    """Exports a ``torch.export`` program.

    Args:
        request: ``program`` (a ``.pt2`` file) and ``out`` (a folder).
        progress: Told how far it is.

    Returns:
        ``graphs`` (files in ``out``).
    """
    _quiet()
    import torch

    progress("reading the program")
    try:
        program = torch.export.load(request["program"])
    except Exception as error:  # noqa: BLE001  # the archive's own reader has no error type
        said = str(error).partition(" Please check the warnings")[0]  # they are not shown
        return {
            "refused": f"torch {torch.__version__} cannot read it: {said}",
            "supported": ["programs that torch.export.save of this or an older release wrote"],
        }
    out = Path(request["out"])
    out.mkdir(parents=True, exist_ok=True)
    progress("exporting it")
    names = _output_names(program)
    exported = torch.onnx.export(program, dynamo=True, verbose=False, output_names=names)
    exported.save(out / "model.onnx")
    return {"graphs": ["model.onnx"]}


def _output_names(program: Any) -> list[str]:
    """Keys of the dictionary returned; else ``output``, or ``output_0``, ``output_1`` and so on."""
    from torch.utils import _pytree as pytree

    spec = program.call_spec.out_spec
    tree = pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
    paths = [path for path, _ in pytree.tree_flatten_with_path(tree)[0]]
    names = []
    for path in paths:
        name = "_".join(re.sub(r"\W", "", str(key)) for key in path)
        names.append(name if name and not name[0].isdigit() else f"output_{name or 0}")
    return ["output"] if names == ["output_0"] else names


def _with_optimum(model: Path, out: Path, task: str, config: Any) -> None:
    from optimum.exporters.onnx import main_export

    sizes = {}
    if config.model_type == "whisper":  # optimum takes 30 seconds for granted
        sizes["nb_max_frames"] = 2 * config.max_source_positions
    main_export(
        str(model),
        output=out,
        task=task,
        dtype="fp32",
        framework="pt",
        library_name="transformers",
        local_files_only=True,
        do_validation=False,  # what runs it compares it
        no_post_process=True,  # decoders apart, for our own way of joining them
        **sizes,
    )


def _with_torch(model: Path, out: Path, task: str, config: Any) -> str | None:
    """Exports a model of text or pictures and compares; gives what speaks against it."""
    import torch
    import transformers

    if task not in HEADS:
        return "torch's exporter is used for encoders only"
    network = getattr(transformers, HEADS[task]).from_pretrained(model, dtype=torch.float32).eval()
    sizes = _sizes(network, config)
    if sizes is None:
        return f"torch's exporter is not used for models of {network.main_input_name}"
    wrapped = _wrapped(network, tuple(sizes))
    given = _random(sizes, 2, 16, config)
    with torch.no_grad():
        names = [
            name for name in ANSWERS if name in network(**dict(zip(sizes, given, strict=True)))
        ]
    wrapped.outputs = names[:1] if names[:1] != ["start_logits"] else names[:2]
    axes = {name: {0: torch.export.Dim("batch_size")} for name in sizes}
    if "pixel_values" not in sizes:
        for name in axes:
            axes[name][1] = torch.export.Dim("sequence_length", min=2)
    out.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        wrapped,
        given,
        out / "model.onnx",
        dynamo=True,
        verbose=False,
        dynamic_shapes=(tuple(axes.values()),),
        input_names=list(sizes),
        output_names=wrapped.outputs,
    )
    return _difference(wrapped, _random(sizes, 3, 11, config), out / "model.onnx")


def _sizes(network: Any, config: Any) -> dict[str, tuple[int, ...]] | None:
    """Inputs with the sizes that are fixed."""
    if network.main_input_name == "input_ids":
        return {"input_ids": (), "attention_mask": ()}
    if network.main_input_name != "pixel_values":
        return None
    size = getattr(config, "image_size", None) or 224
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    return {"pixel_values": (getattr(config, "num_channels", 3), height, width)}


def _random(sizes: dict[str, Any], batch: int, length: int, config: Any) -> tuple[Any, ...]:
    import torch

    made = []
    for name, size in sizes.items():
        if name == "input_ids":
            made.append(torch.randint(0, config.vocab_size, (batch, length)))
        elif name == "attention_mask":
            made.append(torch.ones(batch, length, dtype=torch.int64))
        else:
            made.append(torch.randn(batch, *size))
    return tuple(made)


def _wrapped(network: Any, names: tuple[str, ...]) -> Any:
    """The network with its inputs in order, and the outputs that its task needs."""
    import torch

    class Wrapped(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.outputs: list[str] = []

        def forward(self, *arrays: Any) -> tuple[Any, ...]:
            found = self.network(**dict(zip(names, arrays, strict=True)))
            return tuple(found[name] for name in self.outputs)

    return Wrapped().eval()


def _difference(wrapped: Any, given: tuple[Any, ...], file: Path) -> str | None:
    """Whether the graph computes something else, at other sizes than it was exported with."""
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(file)
    names = [value.name for value in session.get_inputs()]
    feeds = {name: array.numpy() for name, array in zip(names, given, strict=True)}
    with torch.no_grad():
        expected = wrapped(*given)
    for found, wanted in zip(session.run(None, feeds), expected, strict=True):
        worst = (torch.from_numpy(found) - wanted).abs().max().item()
        if not worst <= TOLERANCE * max(1.0, wanted.abs().max().item()):
            return f"what torch exports differs from the model by {worst:.2g}"
    return None


def _tokenizer(model: Path, out: Path) -> None:
    """``tokenizer.json``: the folder's own, or one converted from older files."""
    from transformers import AutoTokenizer

    if (out / "tokenizer.json").is_file():
        return
    if not (model / "tokenizer_config.json").is_file() and not any(model.glob("vocab*")):
        return
    tokenizer = AutoTokenizer.from_pretrained(model, use_fast=True)
    if tokenizer.is_fast:
        tokenizer.backend_tokenizer.save(str(out / "tokenizer.json"))
    elif getattr(tokenizer, "spm_files", None) and not getattr(tokenizer, "separate_vocabs", False):
        _marian(tokenizer).save(str(out / "tokenizer.json"))


def _modules(model: Path, out: Path) -> None:
    """Pickled weights of sentence-transformers' modules as safetensors."""
    import torch
    from safetensors.torch import save_file

    for file in model.glob("*_*/pytorch_model.bin"):
        if not file.with_name("model.safetensors").is_file():
            weights = torch.load(file, map_location="cpu", weights_only=True)
            floats = {name: value.float().contiguous() for name, value in weights.items()}
            save_file(floats, out / f"{file.parent.name}.safetensors")


def _marian(slow: Any) -> Any:
    """Marian's tokenizer, of which transformers has no fast form.

    Texts are cut by the source language's SentencePiece model, but numbered by a table that
    both languages share; pieces of the other language alone are never cut from a text.
    """
    from tokenizers import Tokenizer, models, processors
    from transformers.convert_slow_tokenizer import SpmConverter

    end = slow.eos_token

    class Shared(SpmConverter):  # type: ignore[misc]
        def tokenizer(self, proto: Any) -> Any:
            scores = {piece.piece: piece.score for piece in proto.pieces}
            never = min(scores.values()) - 1000.0
            table = sorted(slow.encoder, key=slow.encoder.__getitem__)
            pieces = [(piece, scores.get(piece, never)) for piece in table]
            return Tokenizer(models.Unigram(pieces, unk_id=slow.unk_token_id))

        def post_processor(self) -> Any:
            return processors.TemplateProcessing(
                single=f"$A {end}", special_tokens=[(end, slow.eos_token_id)]
            )

    slow.vocab_file = slow.spm_files[0]
    made = Shared(slow).converted()
    made.add_special_tokens([end, slow.unk_token, slow.pad_token, *slow.supported_language_codes])
    return made


def _while_loading(error: Exception) -> bool:
    """Whether it is about the model's files, and not about the way through the exporter."""
    return any("from_pretrained" in frame.name for frame in extract_tb(error.__traceback__))


class _Fresh(logging.Handler):
    """Weights that the files lack: transformers draws them at random, and only warns."""

    SAID = re.compile(r"newly initialized: (\[.*?\])")
    # No task here reads the pooler of a model without a head, nor what is masked in training.
    UNUSED = re.compile(r"^pooler\.|(^|\.)(masked_spec_embed|mask_token|position_ids)$")

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._found: list[str] = []
        logger = logging.getLogger("transformers.modeling_utils")
        logger.setLevel(logging.WARNING)
        logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Reads one warning."""
        for names in self.SAID.findall(record.getMessage()):
            self._found += re.findall(r"'([^']+)'", names)

    def weights(self) -> list[str]:
        """Names of those that an answer depends on."""
        return sorted({name for name in self._found if not self.UNUSED.search(name)})


def _quiet() -> None:
    """What the libraries have to say is for their developers."""
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
