"""The toolchain ``hugging-face``: Hugging Face folders and ``torch.export`` programs to ONNX."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before any of the libraries is imported: everything is on disk, nothing is fetched.
os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "0"}

Progress = Callable[[str], None]
Json = dict[str, Any]

PAST = "-with-past"


def export(request: Json, progress: Progress) -> Json:
    """Exports a model and what belongs to it into a new folder.

    Args:
        request: ``model`` (folder), ``out`` (folder) and ``task`` (as optimum names it).
        progress: Told how far it is.

    Returns:
        ``graphs`` (files in ``out``) and ``exporter``, or ``refused`` (why) with ``supported``.
    """
    _quiet()
    import optimum.exporters.onnx.model_configs  # noqa: F401  # registers what it can export
    from optimum.exporters.tasks import TasksManager
    from transformers import AutoConfig

    model, out, task = Path(request["model"]), Path(request["out"]), str(request["task"])
    config = AutoConfig.from_pretrained(model)
    kinds = TasksManager.get_supported_model_type_for_task(task, "onnx")
    if config.model_type in kinds:
        progress(f"exporting {config.model_type} for {task} with optimum")
        _with_optimum(model, out, task, config)
        exporter = "optimum"
    else:
        return {"refused": f"optimum has no export of it for {task}", "supported": sorted(kinds)}
    progress("reading the tokenizer")
    _tokenizer(model, out)
    return {"graphs": sorted(path.name for path in out.glob("*.onnx")), "exporter": exporter}


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
        return {"refused": f"torch {torch.__version__} cannot read it: {error}"}
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


def _quiet() -> None:
    """What the libraries have to say is for their developers."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
