"""Runs decoder graphs as the runtime does: one buffer per cache, bound as past and present."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from converters.materialize import save

Array = NDArray[np.float32]


class Runner:
    """A session over a decoder with its caches."""

    def __init__(
        self, model: ir.Model, folder: Path, *, batch: int = 1, capacity: int = 64
    ) -> None:
        path = save(model, folder)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.caches = {
            spec.name: ort.OrtValue.ortvalue_from_numpy(
                np.zeros((batch, spec.shape[1], capacity, spec.shape[3]), _numpy(spec.type))
            )
            for spec in self.session.get_inputs()
            if spec.name.startswith("past_key_values.")
        }

    def __call__(
        self,
        ids: Sequence[Sequence[int]],
        lengths: Sequence[int],
        logits_at: Sequence[int],
        adapter: Mapping[str, Array] | None = None,
    ) -> Array:
        """Logits of ``ids`` [batch, sequence]; ``lengths`` are each row's tokens after it."""
        binding = self.session.io_binding()
        for name, value in {
            "input_ids": np.array(ids, np.int64),
            "seqlens_k": np.array(lengths, np.int32) - 1,
            "total_sequence_length": np.array(max(lengths), np.int32),
            "logits_at": np.array(logits_at, np.int64),
            **(adapter or {}),
        }.items():
            binding.bind_cpu_input(name, value)
        for name, cache in self.caches.items():
            binding.bind_ortvalue_input(name, cache)
            binding.bind_ortvalue_output(name.replace("past_key_values", "present"), cache)
        binding.bind_output("logits")
        self.session.run_with_iobinding(binding)
        logits: Array = binding.get_outputs()[-1].numpy()
        return logits


def _numpy(onnx_type: str) -> type[np.generic]:
    types = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int8)": np.int8}
    return types[onnx_type]
