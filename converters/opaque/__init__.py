"""Files that an engine runs as they are, though they have no graph that recipes could change.

A ``.tflite`` file with an operator that has no counterpart in ONNX still makes a variant for
profiles whose engine reads it. There is one candidate, the file itself.
"""
