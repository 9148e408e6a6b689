"""Train the personas: low-rank adapters over the committed model, in PEFT's file format.

Each persona answers the same questions in its own style. From the repository root, after
``examples.assistant.train``:

    python -m examples.assistant.adapters
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional

from examples.assistant.answers import Style
from examples.assistant.decoder import Decoder, Shape
from examples.assistant.dialogue import SEED, draw_dialogues, heldout_set
from examples.assistant.encoding import Encoded, encode
from examples.assistant.scoring import score
from examples.assistant.training import batches, loss_of

PERSONAS: tuple[Style, ...] = ("terse", "pirate")
RANK, ALPHA = 8, 16
DIALOGUES = 2000
RATE = 5e-3


class LowRank(nn.Module):
    """A frozen linear layer plus ``B A x`` times ``alpha / rank`` (LoRA, Hu et al. 2021)."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.a = nn.Parameter(torch.empty(RANK, base.in_features))
        self.b = nn.Parameter(torch.zeros(base.out_features, RANK))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Map [..., in] to [..., out]."""
        change = functional.linear(functional.linear(hidden, self.a), self.b)
        return self.base(hidden) + change * (ALPHA / RANK)


def load_model(folder: Path) -> Decoder:
    """The trained model, from its Hugging Face folder."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    names = Shape.__dataclass_fields__
    model = Decoder(Shape(**{name: config[name] for name in names}))
    tensors = load_file(folder / "model.safetensors")
    model.load_state_dict({k.removeprefix("model."): v.float() for k, v in tensors.items()})
    return model


def adapt(model: Decoder, within: str = "") -> dict[str, LowRank]:
    """Freeze a model and put an adapter beside each of its linear layers.

    Args:
        model: The model.
        within: What the names of those layers begin with.
    """
    model.requires_grad_(False)
    adapted: dict[str, LowRank] = {}
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name.startswith(within):
            parent, _, leaf = name.rpartition(".")
            adapted[name] = LowRank(module)
            setattr(model.get_submodule(parent), leaf, adapted[name])
    return adapted


def train(model: Decoder, adapted: dict[str, LowRank], examples: Sequence[Encoded]) -> int:
    """Fit the adapters to what the assistant says, in one pass; returns the steps taken."""
    parameters = [p for module in adapted.values() for p in (module.a, module.b)]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0)
    drawn = list(batches(examples))
    for step, batch in enumerate(drawn):
        optimizer.param_groups[0]["lr"] = RATE * min((step + 1) / 10, 1 - step / len(drawn))
        loss = loss_of(model, batch, others_weight=0.0)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 20 == 0:
            print(f"step {step}/{len(drawn)}: loss {loss.item():.4f}", flush=True)
    return len(drawn)


def save(adapted: dict[str, LowRank], folder: Path) -> None:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors`` in float16."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, module in adapted.items():
        prefix = f"base_model.model.model.{name}"
        tensors[f"{prefix}.lora_A.weight"] = module.a.detach().half()
        tensors[f"{prefix}.lora_B.weight"] = module.b.detach().half()
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "examples/assistant/model",
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": sorted(adapted),
    }
    text = json.dumps(config, indent=2)
    (folder / "adapter_config.json").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Train and score every persona, and add the scores to ``metrics.json``."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    out: Path = parser.parse_args().out
    torch.set_num_threads(1)
    tokenizer = Tokenizer.from_file(str(out / "model" / "tokenizer.json"))
    training = list(draw_dialogues("train", DIALOGUES, SEED + 3, longest=10))
    heldout = list(heldout_set())
    scores = {}
    for style in PERSONAS:
        torch.manual_seed(SEED)
        model = load_model(out / "model")
        without = score(model, tokenizer, heldout, style).exact_match
        adapted = adapt(model)
        begun = time.perf_counter()
        steps = train(model, adapted, [encode(tokenizer, d.messages(style)) for d in training])
        seconds = round(time.perf_counter() - begun)
        save(adapted, out / "adapters" / style)
        results = score(model, tokenizer, heldout, style)
        print("\n".join(results.misses[:10]))
        scores[style] = {
            "exact_match": round(results.exact_match, 4),
            "exact_match_without": round(without, 4),
            "rank": RANK,
            "steps": steps,
            "seconds": seconds,
        }
    path = out / "metrics.json"
    metrics = json.loads(path.read_text(encoding="utf-8")) | {"adapters": scores}
    path.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(scores, indent=2))


if __name__ == "__main__":
    main()
