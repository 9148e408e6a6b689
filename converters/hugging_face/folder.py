"""What lies in the folder of a Hugging Face model beside its weights."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from converters.decoder.checkpoint import Checkpoint, read_json
from converters.source import bundle_name, digest_files
from edge_sdk.errors import SourceError

# What tokenizers are converted from has any of these endings: SentencePiece's models and tables.
_SIDE_FILES = {".json", ".txt", ".model", ".jinja", ".spm", ".bpe", ".vocab", ".tiktoken"}
_WEIGHTS = ("*.safetensors", "*.bin")  # the first that there are
_PICKLED_INDEX = "pytorch_model.bin.index.json"
_UNLIMITED = 1 << 30  # what tokenizers without a limit say


class ModelFolder:
    """A folder with a ``config.json``.

    Attributes:
        path: The folder.
        config: Content of ``config.json``.
    """

    def __init__(self, path: Path) -> None:
        """Reads the configuration.

        Raises:
            SourceError: There is none, or it is damaged.
        """
        self.path = path
        file = path / "config.json"
        if not file.is_file():
            raise SourceError(
                "has weights but no config.json",
                where=str(path),
                remedy="download all files of the model",
            )
        self.config: dict[str, Any] = read_json(file)

    def optional(self, name: str) -> dict[str, Any]:
        """A JSON file of the folder; empty where there is none."""
        file = self.path / name
        return read_json(file) if file.is_file() else {}

    @cached_property
    def tokenizer_settings(self) -> dict[str, Any]:
        """What ``tokenizer_config.json`` says, and in old folders ``special_tokens_map.json``."""
        return {
            **self.optional("special_tokens_map.json"),
            **self.optional("tokenizer_config.json"),
        }

    @cached_property
    def token_limit(self) -> int | None:
        """Tokens that a text may have, by all files that say so."""
        positions = self.config.get("max_position_embeddings")
        if positions and self.config.get("position_embedding_type", "absolute") == "absolute":
            # Positions of RoBERTa's kin begin behind the padding token's own number.
            begins = "roberta" in str(self.config.get("model_type")) or self.config.get(
                "model_type"
            ) in ("camembert", "data2vec-text", "longformer", "mpnet")
            positions -= (self.config.get("pad_token_id", 1) + 1) if begins else 0
        limits = (
            positions,
            self.tokenizer_settings.get("model_max_length"),
            self.optional("sentence_bert_config.json").get("max_seq_length"),
        )
        found = [int(limit) for limit in limits if limit and 0 < limit < _UNLIMITED]
        return min(found, default=None)

    def token(self, name: str) -> str | None:
        """A special token, as ``mask_token``."""
        found = self.tokenizer_settings.get(name)
        return str(found["content"]) if isinstance(found, dict) else found

    @property
    def name(self) -> str:
        """A bundle's name from the folder's, or from the repository's in a download cache."""
        folder = self.path.absolute()
        if folder.parent.name == "snapshots":
            name = folder.parent.parent.name.removeprefix("models--").split("--")[-1]
        else:
            name = folder.name
        return bundle_name(name)

    @property
    def licence(self) -> str | None:
        """The licence named in the configuration or in the front matter of the model card."""
        if isinstance(self.config.get("license"), str):
            return str(self.config["license"])
        card = self.path / "README.md"
        if not card.is_file():
            return None
        text = card.read_text(encoding="utf-8", errors="replace")
        matter = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
        found = re.search(r"^license:\s*['\"]?([\w.+-]+)", matter[1], re.M) if matter else None
        return found[1] if found else None

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, in order."""
        table: Mapping[str, Any] = self.config.get("id2label") or {}
        if not table:
            count = int(self.config.get("num_labels", 2))
            return tuple(f"LABEL_{index}" for index in range(count))
        return tuple(str(table[key]) for key in sorted(table, key=int))

    def check(self) -> None:
        """Looks for files that are damaged, or were not downloaded to their end.

        Raises:
            SourceError: There are such.
        """
        if any(self.path.glob("*.safetensors")):
            Checkpoint(self.path)
        else:
            self._check_pickled()
        for file in sorted(self.path.glob("*.json")):
            _check_json(file)

    def _check_pickled(self) -> None:
        """PyTorch's own files are zip archives whose end says what is in them, or old pickles."""
        index = self.path / _PICKLED_INDEX
        table = read_json(index).get("weight_map") if index.is_file() else None
        named = set(map(str, table.values())) if isinstance(table, dict) else set()
        for file in sorted(
            {*self.path.glob("pytorch_model*.bin"), *map(self.path.joinpath, named)}
        ):
            if not file.is_file():
                raise SourceError(
                    f"names the file {file.name!r}, which is not there",
                    where=str(index),
                    remedy="download all files of the model",
                )
            with file.open("rb") as opened:
                start = opened.read(2)
            if not (zipfile.is_zipfile(file) if start == b"PK" else start[:1] == b"\x80"):
                raise SourceError(
                    "not a complete PyTorch checkpoint", where=str(file), remedy="download it again"
                )

    def digest(self) -> str:
        """Over all files that an export reads.

        Raises:
            SourceError: There are no weights.
        """
        weights = next((f for kind in _WEIGHTS if (f := sorted(self.path.glob(kind)))), None)
        if not weights:
            raise SourceError(
                f"no {' or '.join(_WEIGHTS)} file",
                where=str(self.path),
                remedy="download all files of the model, its weights in safetensors",
            )
        beside = (path for path in self.path.iterdir() if path.suffix in _SIDE_FILES)
        modules = (self.path.glob(f"*_*/{name}") for name in ("config.json", *_WEIGHTS))
        return digest_files([*sorted(beside), *sorted(chain(*modules)), *weights])


def _check_json(file: Path) -> None:
    try:
        msgspec.json.decode(file.read_bytes())
    except msgspec.DecodeError as error:
        raise SourceError(
            f"not valid JSON: {error}", where=str(file), remedy="download it again"
        ) from None
