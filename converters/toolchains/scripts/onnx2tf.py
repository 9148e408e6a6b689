"""The toolchain ``onnx2tf``: ONNX graphs to TensorFlow Lite files, without TensorFlow."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def convert(request: dict[str, Any], progress: Callable[[str], None]) -> dict[str, Any]:
    """Converts a graph; its float inputs of rank 4 become NHWC, names stay.

    Args:
        request: ``model`` (an ``.onnx`` file) and ``out`` (the ``.tflite`` file).
        progress: Told how far it is.

    Returns:
        ``size`` of the file in bytes.
    """
    import onnx
    import onnx2tf

    progress("converting with onnx2tf")
    out = Path(request["out"])
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "source.onnx"  # onnx2tf writes over the file it is given
        onnx.save(onnx.load(request["model"]), copy, save_as_external_data=True)
        onnx2tf.convert(
            input_onnx_file_path=str(copy),
            output_folder_path=folder,
            copy_onnx_input_output_names_to_tflite=True,
            non_verbose=True,
        )
        found = next(Path(folder).glob("*_float32.tflite"))
        out.write_bytes(found.read_bytes())
    return {"size": out.stat().st_size}
