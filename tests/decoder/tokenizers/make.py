"""Makes the SentencePiece fixtures of this folder: small models, and what they make of ugly texts.

Needs ``sentencepiece``, whose tokens are the expected ones; the tests do not.
Run from the root of the repository::

    python -m tests.decoder.tokenizers.make
"""

from __future__ import annotations

import json
from pathlib import Path

import sentencepiece

from tests.decoder.ugly import TEXTS

FOLDER = Path(__file__).parent
CORPUS = """The quick brown fox jumps over the lazy dog while the pump's alarm keeps ringing.
Set the temperature to 21.5 degrees; report every 10 minutes, please!  Then reset   the counter.
Größe, façade, naïve, smörgåsbord: words with accents occur in every log.
温度を確認してください。 警报 温度 传感器 请检查。 الحرارة مرتفعة جدا
def reading(sensor): return {'value': sensor.read(), 'unit': "C"}
"""
IDENTITY = {"normalization_rule_name": "identity"}
MODELS: dict[str, dict[str, object]] = {
    # Llama 2: a space before the text, nothing normalized, unknown characters as bytes.
    "llama": {**IDENTITY, "add_dummy_prefix": True, "remove_extra_whitespaces": False},
    # InternLM2: no space before the text.
    "internlm2": {**IDENTITY, "add_dummy_prefix": False, "remove_extra_whitespaces": False},
    # Characters mapped (a ligature, a wide letter, a wide space), spaces collapsed.
    "folded": {"add_dummy_prefix": True, "remove_extra_whitespaces": True},
}
RULES = "FB01\t66 69\nFF21\t41\n3000\t20\n"


def main() -> None:
    """Trains the models and writes the tokens of every text."""
    expected = {}
    rules = FOLDER / "rules.tsv"
    rules.write_text(RULES)
    for name, options in MODELS.items():
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS.splitlines() * 3),
            model_prefix=str(FOLDER / name),
            model_type="bpe",
            vocab_size=480,
            byte_fallback=True,
            user_defined_symbols=["<tool>"],
            control_symbols=["<|im_start|>", "<|im_end|>"],
            **(
                options
                if options.keys() & IDENTITY
                else {**options, "normalization_rule_tsv": str(rules)}
            ),
        )
        (FOLDER / f"{name}.vocab").unlink()
        model = sentencepiece.SentencePieceProcessor(str(FOLDER / f"{name}.model"))
        expected[name] = [model.encode(text) for text in TEXTS]
    rules.unlink()
    text = json.dumps(expected, separators=(",", ":")).replace("],[", "],\n[")
    (FOLDER / "expected.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
