"""Texts that tokenizers disagree on: scripts, emoji, spaces, digits, contractions, code."""

from __future__ import annotations

TEXTS = (
    "Hello world",
    " leading space",
    "  two leading,   three inside, two trailing  ",
    "tabs\tand\nlines\r\n\r\n  indented\n\n\n",
    "I'm, you'RE, it'S; they'll: DON'T",
    "1 12 123 1234 12345.678,90 ٣٤٥ ½ Ⅷ",
    "Größe façade naïve smo\u0308rga\u030asbord ﬁ ＡＢＣ",
    "温度を確認してください。警报传感器",
    "الحرارة مرتفعة جدا שלום",
    "emoji 🙂 👩‍👩‍👧‍👦 🇩🇪 ✊🏽 end",
    "zero\u200bwidth\u00a0no-break\u3000ideographic\ufeff",
    "def f(x):\n    return {'a': x[0]}  # {{jinja}}",
    "aaaaaaaaaaaaaaaa hahahahaha ----====----",
    "rare \U0001f9ff\U00020bb7 \x07\x1b[0m \x7f",
    "the<tool>fox",
    "",
    " ",
    "▁lower one eighth ▁▁ block",
    "a" * 200,
)
