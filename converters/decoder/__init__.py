"""Decoders (dialogue models): a graph built straight from configuration and weights.

::

    config.json + *.safetensors ─┐                      ┌─ WeightPlan (formats per node)
                                 ├─> Architecture ──────┤
    model.gguf ──────────────────┘   Weights (lazy) ────┴─> graph.build ─> ir.Model

A reader (:mod:`converters.sources`) gives a :class:`DecoderSource`: the
:class:`Architecture` and a lazy view of its :class:`Weights` under canonical
names. Nothing here needs torch or transformers, and nothing holds more than
one node's weights in memory.
"""
