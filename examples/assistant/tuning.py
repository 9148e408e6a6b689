"""Tune one layer: a version that asks back, as a fine-tune would make it.

A low-rank change of one layer's MLP, trained like the personas and kept in PEFT's file format; a
new version of the model is the old one with it added. ``edge-sdk demo`` deploys that as its second
version. From the repository root, after ``examples.assistant.train``:

    python -m examples.assistant.tuning
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer

from examples.assistant.adapters import RANK, adapt, load_model, save, train
from examples.assistant.answers import Style
from examples.assistant.dialogue import SEED, draw_dialogues, heldout_set
from examples.assistant.encoding import encode
from examples.assistant.scoring import score

LAYER = "layers.2.mlp."
STYLE: Style = "asking"
DIALOGUES = 1200


def main() -> None:
    """Train and score the change, and add the scores to ``metrics.json``."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    out: Path = parser.parse_args().out
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    tokenizer = Tokenizer.from_file(str(out / "model" / "tokenizer.json"))
    training = draw_dialogues("train", DIALOGUES, SEED + 4, longest=10)
    model = load_model(out / "model")
    adapted = adapt(model, within=LAYER)
    begun = time.perf_counter()
    steps = train(model, adapted, [encode(tokenizer, d.messages(STYLE)) for d in training])
    seconds = round(time.perf_counter() - begun)
    save(adapted, out / "tuning")
    results = score(model, tokenizer, list(heldout_set()), STYLE)
    print("\n".join(results.misses[:10]))
    scores = {
        "layer": LAYER.rstrip("."),
        "exact_match": round(results.exact_match, 4),
        "rank": RANK,
        "steps": steps,
        "seconds": seconds,
    }
    path = out / "metrics.json"
    metrics = json.loads(path.read_text(encoding="utf-8")) | {"tuning": scores}
    path.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(scores, indent=2))


if __name__ == "__main__":
    main()
