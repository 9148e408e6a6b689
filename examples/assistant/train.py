"""Train the gateway assistant: a small Llama-architecture dialogue model with its tokenizer.

The corpus is generated (``corpus.toml``, ``dialogue.py``); nothing is downloaded. From the
repository root:

    pip install torch==2.13.0 safetensors tokenizers
    python -m examples.assistant.train

The same seed gives the same model on the same machine; another CPU may differ in the last digits
of the weights, and so by an answer or two.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from examples.assistant.circuit import begin_by_copying
from examples.assistant.decoder import Decoder, Shape
from examples.assistant.dialogue import (
    SEED,
    calibration_set,
    heldout_set,
    phrasings,
    readings,
    training_set,
    write_jsonl,
)
from examples.assistant.encoding import END, PAD, Encoded, encode, train_tokenizer, write_tokenizer
from examples.assistant.scoring import score
from examples.assistant.training import batches, loss_of

VOCABULARY = 1280
RATE = 3e-3
OTHERS_WEIGHT = 0.05
"""How much a token counts that the assistant reads and does not say: enough for the perplexity
of a whole dialogue to mean something."""


def train(model: Decoder, examples: Sequence[Encoded]) -> int:
    """Fit matrices with Muon and the rest with AdamW, in one pass.

    Returns:
        The steps taken.
    """
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers = (
        torch.optim.Muon(matrices, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, betas=(0.9, 0.95), weight_decay=0.0),
    )
    drawn = batches(examples)
    model.train()
    begun = time.perf_counter()
    for step, batch in enumerate(drawn, start=1):
        share = step / len(drawn)
        loss = loss_of(model, batch, OTHERS_WEIGHT)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = RATE * min(step / 50, 1.0, 1.5 * (1 - share))
            optimizer.step()
            optimizer.zero_grad()
        if step % 50 == 0:
            seconds = time.perf_counter() - begun
            print(f"step {step}/{len(drawn)}: loss {loss.item():.4f}, {seconds:.0f} s", flush=True)
    return len(drawn)


def main() -> None:
    """Generate, train, score, and write everything this folder holds."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    out: Path = parser.parse_args().out
    folder = out / "model"
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # another number sums in another order, and gives another model
    assert not phrasings("train") & phrasings("heldout"), "a held-out phrasing can be trained on"
    training, calibration, heldout = (
        list(dialogues) for dialogues in (training_set(), calibration_set(), heldout_set())
    )
    assert not readings(training) & readings(heldout), "a held-out reading can be trained on"
    assert not {one.system for one in training} & {one.system for one in calibration}

    begun = time.perf_counter()
    tokenizer = train_tokenizer([one.messages() for one in training[:4000]], VOCABULARY)
    model = Decoder(Shape(tokenizer.get_vocab_size()))
    begin_by_copying(model)
    examples = [encode(tokenizer, one.messages()) for one in training]
    steps = train(model, examples)
    seconds = round(time.perf_counter() - begun)

    write_tokenizer(tokenizer, folder, model.shape.max_position_embeddings)
    model.save(folder, eos=tokenizer.token_to_id(END), pad=tokenizer.token_to_id(PAD))
    write_jsonl(calibration, out / "calibration.jsonl")
    write_jsonl(heldout, out / "heldout.jsonl")
    model.round_to_half()
    results = score(model, tokenizer, heldout)
    metrics = {
        "model": "model/model.safetensors",
        "bytes": (folder / "model.safetensors").stat().st_size,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seed": SEED,
        "steps": steps,
        "tokens": sum(len(one.tokens) for one in examples),
        "seconds": seconds,
        "heldout_dialogues": len(heldout),
        "heldout_answers": sum(len(one.exchanges) for one in heldout),
        "heldout": {
            "exact_match": round(results.exact_match, 4),
            "perplexity": round(results.perplexity, 4),
        },
        "torch": torch.__version__,
    }
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(metrics, indent=2))
    print("\n".join(results.misses[:40]))


if __name__ == "__main__":
    main()
