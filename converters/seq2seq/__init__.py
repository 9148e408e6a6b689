"""Encoder-decoder models: text or sound in, text out (T5, BART, Marian, Whisper).

::

    encoder_model.onnx ───────────┐                   ┌─ encoder: inputs -> cross keys and values
    decoder_model.onnx ───────────┼─> Seq2SeqSource ──┤
    decoder_with_past_model.onnx ─┘                   └─ decoder: tokens, past -> logits, present

An export has three graphs, the two decoders of one set of weights. Two are enough: what
the first decoder computes of the encoder's output alone moves behind the encoder, and the
second decoder takes any number of tokens behind a past of any length, none included. Both
are then converted like any other graph, and judged together by what they write.
"""
