"""Writes what transformers' pipelines make of the logits of tiny random models.

Needs transformers==4.57.6 and torch: ``python -m tests.runtime.reference.make_texts``.
The logits are written beside the answers, so the tests need neither.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "MISC"]
CONTEXT = (
    "Ada Lovelace wrote the first program for the Analytical Engine, a machine that Charles "
    "Babbage never finished. She was born in London; her notes on Menabrea's memoir appeared "
    "in 1843. Ünïcödé naïveté, e.g. in Zürich (Switzerland), isn't rare: it's everywhere!"
)
TEXTS = [
    "Ada Lovelace lived in London, near St. James's Square.",
    "unbelievable Zürich-Oerlikon",
    "",
    CONTEXT,
]
QUESTIONS = ["Who wrote the first program?", "Where was she born, and when?"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WINDOW, STRIDE = 40, 8


def word_pieces() -> Any:
    """A WordPiece tokenizer of BERT's form, which leaves accents and case alone."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from tokenizers.processors import TemplateProcessing

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=140, special_tokens=SPECIAL)
    tokenizer.train_from_iterator([CONTEXT, *QUESTIONS, *TEXTS], trainer)
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


def byte_pairs() -> Any:
    """A byte-level BPE tokenizer of RoBERTa's form."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from tokenizers.processors import RobertaProcessing

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator([CONTEXT, *QUESTIONS, *TEXTS], trainer)
    tokenizer.post_processor = RobertaProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def main() -> None:
    """Writes ``texts.json`` and the tokenizers."""
    cases: dict[str, Any] = {}
    for name, tokenizer in (("word-pieces", word_pieces()), ("byte-pairs", byte_pairs())):
        tokenizer.save(str(HERE / f"{name}.json"))
        cases[name] = {"tags": tags(tokenizer), "answers": answers(tokenizer)}
    cases["letters"] = letters()
    (HERE / "texts.json").write_text(json.dumps(cases, ensure_ascii=False) + "\n")


def tags(tokenizer: Any) -> list[dict[str, Any]]:
    """Logits per token, and the pipeline's entities for each aggregation."""
    import transformers

    fast, model = _model(tokenizer, transformers.BertForTokenClassification, LABELS)
    found = []
    for text in TEXTS:
        case: dict[str, Any] = {"text": text, "logits": _logits(model, fast(text))["logits"]}
        for aggregation in ("none", "simple", "first", "average", "max"):
            pipe = transformers.TokenClassificationPipeline(
                model=model, tokenizer=fast, aggregation_strategy=aggregation
            )
            case[aggregation] = [
                [e.get("entity_group", e.get("entity")), float(e["score"]), e["start"], e["end"]]
                for e in pipe(text)
            ] if text else []  # fmt: skip
        found.append(case)
    windows = transformers.TokenClassificationPipeline(
        model=model, tokenizer=fast, aggregation_strategy="simple", stride=STRIDE
    )
    fast.model_max_length = WINDOW
    encoded = fast(
        CONTEXT, truncation=True, stride=STRIDE, max_length=WINDOW, return_overflowing_tokens=True
    )
    parts = [
        _logits(model, {key: encoded[key][i] for key in ("input_ids", "attention_mask")})["logits"]
        for i in range(len(encoded["input_ids"]))
    ]
    expected = [
        [e["entity_group"], float(e["score"]), e["start"], e["end"]] for e in windows(CONTEXT)
    ]
    return [*found, {"text": CONTEXT, "windows": parts, "simple": expected}]


def answers(tokenizer: Any) -> list[dict[str, Any]]:
    """Logits per window, and the pipeline's answers."""
    import transformers

    fast, model = _model(tokenizer, transformers.BertForQuestionAnswering, LABELS[:2])
    pipe = transformers.QuestionAnsweringPipeline(model=model, tokenizer=fast)
    found = []
    for question in QUESTIONS:
        encoded = fast(
            question, CONTEXT, truncation="only_second", max_length=WINDOW, stride=STRIDE,
            return_overflowing_tokens=True, return_token_type_ids=True,
        )  # fmt: skip
        keys = [key for key in fast.model_input_names if key in encoded]
        windows = [
            _logits(model, {key: encoded[key][i] for key in keys})
            for i in range(len(encoded["input_ids"]))
        ]
        for may_lack in (False, True):
            answered = pipe(
                question=question, context=CONTEXT, max_seq_len=WINDOW, doc_stride=STRIDE,
                top_k=4, max_answer_len=6, handle_impossible_answer=may_lack,
            )  # fmt: skip
            found.append(
                {
                    "question": question,
                    "may_lack": may_lack,
                    "start": [window["start_logits"] for window in windows],
                    "end": [window["end_logits"] for window in windows],
                    "answers": [[a["answer"], a["score"], a["start"], a["end"]] for a in answered],
                }
            )
    return found


def letters() -> dict[str, Any]:
    """Tokens per frame, and Wav2Vec2's text and words."""
    import numpy as np
    import transformers

    vocabulary = {"<pad>": 0, "<unk>": 1, "|": 2, "A": 3, "B": 4, "C": 5, "'": 6}
    random = np.random.default_rng(3)
    ids = np.repeat(random.integers(0, 7, 60), random.integers(1, 4, 60)).tolist()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vocab.json"
        file.write_text(json.dumps(vocabulary))
        tokenizer = transformers.Wav2Vec2CTCTokenizer(str(file))
        decoded = tokenizer.decode(ids, output_word_offsets=True)
    words = [
        [w["word"], int(w["start_offset"]), int(w["end_offset"])] for w in decoded.word_offsets
    ]
    return {"vocabulary": vocabulary, "ids": ids, "text": decoded.text, "words": words}


def _model(tokenizer: Any, kind: Any, labels: list[str]) -> tuple[Any, Any]:
    import torch
    import transformers

    kinds = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    names = dict(zip(kinds, SPECIAL, strict=True))
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    config = transformers.BertConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=16, num_hidden_layers=1,
        num_attention_heads=2, intermediate_size=16, max_position_embeddings=512,
        initializer_range=0.8, id2label=dict(enumerate(labels)),
    )  # fmt: skip
    torch.manual_seed(0)
    return fast, kind(config).eval()


def _logits(model: Any, encoded: Any) -> dict[str, Any]:
    import torch

    arrays = {key: torch.tensor([value]) for key, value in encoded.items()}
    with torch.no_grad():
        found = model(**arrays)
    return {
        key: [[float(f"{v:.6g}") for v in row] for row in value[0].tolist()]
        if value.ndim == 3
        else [float(f"{v:.6g}") for v in value[0].tolist()]
        for key, value in found.items()
    }


if __name__ == "__main__":
    main()
