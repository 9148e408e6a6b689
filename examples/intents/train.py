"""Train the intent classifier: a BERT-class encoder for what people ask a gateway.

The corpus is generated (``corpus.toml``, ``corpus.py``); nothing is downloaded. Held-out
utterances use phrasings that never occur in training. From the repository root, about four
minutes on one core:

    pip install torch==2.13.0 onnx onnxscript onnxruntime tokenizers
    python -m examples.intents.train

The same seed gives the same model on the same machine; another CPU may differ in the last
digits of the weights, and so by an utterance or two in the accuracy.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from torch.nn import functional

from examples.exporting import (
    Array,
    Metrics,
    count_parameters,
    export_onnx,
    seed_everything,
    session,
)
from examples.intents.corpus import Grammar, Utterance, generate, write_jsonl
from examples.intents.encoder import EncoderShape, IntentEncoder

SEED = 11
PER_INTENT_TRAIN, PER_INTENT_CALIBRATION, PER_INTENT_HELDOUT = 2400, 17, 25
INVENT_RATE = 0.35
VOCABULARY = 1500
EPOCHS, BATCH, PEAK_RATE = 5, 32, 8e-4
CORRUPT_RATE = 0.05
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
PAD, UNK, CLS, SEP = range(len(SPECIAL))

AXES = {0: "batch", 1: "sequence"}
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def learn_vocabulary(texts: Sequence[str]) -> dict[str, int]:
    """Learn WordPiece tokens from `texts`, the same ones in every run.

    The trainer numbers the letters inside words in hash order and breaks ties by number, so they
    are handed to it in alphabetical order, disguised as special tokens.
    """
    letters = [f"##{letter}" for letter in sorted(set("".join(texts).lower()))]
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCABULARY, special_tokens=SPECIAL + letters, show_progress=False
    )
    scratch = wordpiece(models.WordPiece())
    scratch.train_from_iterator(texts, trainer)
    return scratch.get_vocab()


def wordpiece(model: models.WordPiece) -> Tokenizer:
    """Lower-case and split like BERT in front of `model`."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def train_tokenizer(texts: Sequence[str], positions: int) -> Tokenizer:
    """Build a BERT tokenizer over the vocabulary of `texts` that cuts at `positions` tokens."""
    vocabulary = learn_vocabulary(texts)
    tokenizer = wordpiece(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", SEP), ("[CLS]", CLS))
    tokenizer.enable_truncation(positions)
    return tokenizer


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> dict[str, Array]:
    """Token ids, mask and types of `texts`, int64 [texts, longest], padded at the end."""
    ids = [tokenizer.encode(text).ids for text in texts]
    input_ids = np.full((len(ids), max(map(len, ids))), PAD, dtype=np.int64)
    for row, tokens in enumerate(ids):
        input_ids[row, : len(tokens)] = tokens
    mask = (input_ids != PAD).astype(np.int64)
    return dict(zip(INPUTS, (input_ids, mask, np.zeros_like(mask)), strict=True))


def class_indices(utterances: Sequence[Utterance], labels: Sequence[str]) -> Array:
    """Class index of each utterance, int64."""
    return np.array([labels.index(utterance.label) for utterance in utterances], dtype=np.int64)


def corrupt(input_ids: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """Hide some tokens and replace as many by random ones, so that no single word decides."""
    chance = torch.rand(input_ids.shape)
    chance[input_ids <= SEP] = 0.5  # leave special tokens alone
    noisy = input_ids.masked_fill(chance < CORRUPT_RATE, UNK)
    random_ids = torch.randint(SEP + 1, vocabulary, input_ids.shape)
    return torch.where(chance > 1 - CORRUPT_RATE, random_ids, noisy)


def batches(lengths: torch.Tensor) -> list[torch.Tensor]:
    """Row numbers of each batch: random, but of like length, to compute little padding."""
    order = torch.randperm(len(lengths))
    pools = (pool[lengths[pool].argsort(stable=True)] for pool in order.split(64 * BATCH))
    drawn = [rows for pool in pools for rows in pool.split(BATCH)]
    return [drawn[at] for at in torch.randperm(len(drawn))]


def train(model: IntentEncoder, feeds: dict[str, Array], classes: Array) -> None:
    """Fit `model` with AdamW, a one-cycle rate and label smoothing."""
    input_ids, mask, types = (torch.from_numpy(feeds[name]) for name in INPUTS)
    target = torch.from_numpy(classes)
    lengths = mask.sum(dim=1)
    steps = len(batches(lengths))
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, EPOCHS * steps)
    model.train()
    for epoch in range(EPOCHS):
        noisy_ids = corrupt(input_ids, model.embeddings.word.num_embeddings)
        total = 0.0
        for rows in batches(lengths):
            longest = int(lengths[rows].max())
            batch = (tensor[rows, :longest] for tensor in (noisy_ids, mask, types))
            logits, _ = model(*batch)
            loss = functional.cross_entropy(logits, target[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}/{EPOCHS}: loss {total / steps:.4f}", flush=True)


def accuracy(path: Path, feeds: dict[str, Array], classes: Array) -> float:
    """Top-1 accuracy of the ONNX file, one utterance set in one padded batch."""
    (logits,) = session(path).run(["logits"], feeds)
    return float((logits.argmax(axis=1) == classes).mean())


def main() -> None:
    """Generate, train, export, measure, and write everything this folder holds."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    seed_everything(SEED)
    grammar = Grammar.load("train")
    labels = grammar.labels
    training = generate(Grammar.load("train", INVENT_RATE), PER_INTENT_TRAIN, SEED)
    calibration = generate(grammar, PER_INTENT_CALIBRATION, SEED + 1, avoid=training)
    heldout = generate(Grammar.load("heldout"), PER_INTENT_HELDOUT, SEED + 2, avoid=training)

    positions = EncoderShape.positions
    tokenizer = train_tokenizer([utterance.text for utterance in training], positions)
    shape = EncoderShape(tokenizer.get_vocab_size(), len(labels))
    model = IntentEncoder(shape)
    texts = [utterance.text for utterance in training]
    train(model, encode(tokenizer, texts), class_indices(training, labels))

    path = out / "intents.onnx"
    feeds = encode(tokenizer, [utterance.text for utterance in calibration[:8]])
    example = {name: torch.from_numpy(array) for name, array in feeds.items()}
    outputs = ["logits", "last_hidden_state"]
    difference = export_onnx(model, example, outputs, path, dict.fromkeys(INPUTS, AXES))
    tokenizer.save(str(out / "tokenizer.json"))
    (out / "labels.json").write_text(json.dumps(labels, indent=2) + "\n", encoding="utf-8")
    write_jsonl(calibration, out / "calibration.jsonl")
    write_jsonl(heldout, out / "heldout.jsonl")
    feeds = encode(tokenizer, [utterance.text for utterance in heldout])
    metrics = Metrics(
        model=path.name,
        bytes=path.stat().st_size,
        parameters=count_parameters(model),
        seed=SEED,
        heldout_samples=len(heldout),
        heldout={"top-1": accuracy(path, feeds, class_indices(heldout, labels))},
        max_abs_diff=difference,
        torch=torch.__version__,
    )
    metrics.write(out)
    print(metrics)


if __name__ == "__main__":
    main()
