"""What a variant's steps make of ``run``: texts, pictures and sound in, typed answers out.

::

    text ──── tokenize ──┐             ┌─ pool ──────────── embed
    picture ─ image ─────┼─ the graph ─┼─ softmax, labels ─ classify
    sound ─── waveform ──┘             ├─ entities ──────── tag
              spectrogram              ├─ span ──────────── answer
                                       ├─ fill ──────────── fill
                                       └─ ctc ───────────── transcribe

One file per task; a task is a function of a :class:`~edge_sdk.runtime.tasks.variant.Variant`,
which :class:`edge_sdk.Model` holds. It imports a task when that is first asked for.
"""
