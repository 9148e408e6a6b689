"""Dialogues as tokens: the tokenizer, the chat template, and which tokens the assistant says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from examples.assistant.dialogue import Message

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

SHOWROOM = (
    "This is gateway north-1. The gateway runs firmware 2.4. The gateway has been up for 12 days. "
    "3 devices: boiler, pump and fan. "
    "The boiler is now on. The boiler reads 61 C. The boiler holds 60 C. "
    "The boiler allows 40 to 75 C. "
    "The pump is now off. The pump reads 34 bar. The pump holds 40 bar. "
    "The pump allows 20 to 65 bar. "
    "The fan is now on. The fan reads 48 Hz. The fan holds 50 Hz. The fan allows 25 to 60 Hz. "
    "1 alarm: A3. A3 says boiler overheated. A3 is new."
)
"""The gateway to talk about where a caller gives no system message."""

TEMPLATE = f"""\
{{%- if messages[0]['role'] != 'system' -%}}
{{{{- '<|im_start|>system\\n{SHOWROOM}<|im_end|>\\n' -}}}}
{{%- endif -%}}
{{%- for message in messages -%}}
{{{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}}}
{{%- endfor -%}}
{{%- if add_generation_prompt -%}}
{{{{- '<|im_start|>assistant\\n' -}}}}
{{%- endif -%}}"""


@dataclass(frozen=True)
class Encoded:
    """A dialogue as tokens, and for each whether the assistant said it."""

    tokens: tuple[int, ...]
    said: tuple[bool, ...]


def pieces(messages: Sequence[Message]) -> Iterator[tuple[str, bool]]:
    """The dialogue as text, in pieces that the assistant said or did not."""
    for message in messages:
        yield f"{START}{message['role']}\n", False
        yield f"{message['content']}{END}", message["role"] == "assistant"
        yield "\n", False


def encode(tokenizer: Tokenizer, messages: Sequence[Message]) -> Encoded:
    """Tokens of a dialogue; the same as of its text in one piece."""
    tokens: list[int] = []
    said: list[bool] = []
    for text, by_assistant in pieces(messages):
        ids = tokenizer.encode(text).ids
        tokens += ids
        said += [by_assistant] * len(ids)
    return Encoded(tuple(tokens), tuple(said))


def train_tokenizer(dialogues: Sequence[Sequence[Message]], vocabulary: int) -> Tokenizer:
    """Learn a byte-level BPE; numbers of two digits become tokens of their own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, START, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = ("".join(text for text, _ in pieces(messages)) for messages in dialogues)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def write_tokenizer(tokenizer: Tokenizer, folder: Path, context: int) -> None:
    """Write the tokenizer's files and the generation defaults as Hugging Face lays them out."""
    tokenizer.save(str(folder / "tokenizer.json"))
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "bos_token": None,
        "eos_token": END,
        "pad_token": PAD,
        "chat_template": TEMPLATE,
    }
    generation = {
        "eos_token_id": tokenizer.token_to_id(END),
        "pad_token_id": tokenizer.token_to_id(PAD),
        "do_sample": False,
    }
    for name, content in (
        ("tokenizer_config.json", described),
        ("generation_config.json", generation),
    ):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
