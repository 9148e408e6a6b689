"""Encoder-decoder models: an input read once, and an output written behind it.

::

    text ── tokenize ──┐                 ┌──── past ────┐
    sound ─ log-mel ───┴─ encoder ─ cross keys, values ─ decoder ─ rules, sampling ─ text
"""
