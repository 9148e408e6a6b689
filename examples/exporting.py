"""What the three training scripts share: seeding, a clean ONNX export, and the metrics file.

The modern torch exporter is run without its optimizer, because that one folds BatchNorm into
Conv and would leave a converter nothing to do. Constants are folded here instead, and every
node and tensor is named after the torch module it came from, so the graph reads like the code.
"""

from __future__ import annotations

import ast
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx_ir.passes import Sequential
from onnx_ir.passes import common as passes
from onnxscript import optimizer, rewriter
from onnxscript.rewriter.rules import common as rules

Array = NDArray[np.generic]

OPSET = 18
_FOLD = 1 << 22  # elements: any weight of these models
_SCOPES = "pkg.torch.onnx.name_scopes"
"""Where the exporter notes the chain of torch modules a node came from."""


@dataclass(frozen=True)
class Metrics:
    """What was measured on the committed file, as written to ``metrics.json``.

    Attributes:
        model: File name of the ONNX model.
        bytes: Size of that file.
        parameters: Trained parameters.
        seed: Seed of the data, the split and the training.
        heldout_samples: Number of held-out samples behind `heldout`.
        heldout: Metric name to value, measured with ONNX Runtime on the file itself.
        max_abs_diff: Largest difference of any output between torch and ONNX Runtime.
        torch: Version of torch that trained and exported the model.
    """

    model: str
    bytes: int
    parameters: int
    seed: int
    heldout_samples: int
    heldout: dict[str, float]
    max_abs_diff: float
    torch: str

    def write(self, folder: Path) -> None:
        """Write ``metrics.json`` into `folder`."""
        text = json.dumps(asdict(self), indent=2)
        (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")


def seed_everything(seed: int) -> None:
    """Seed python, numpy and torch, and allow only deterministic kernels on one thread."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)  # the order of float sums must not depend on the core count


def count_parameters(module: torch.nn.Module) -> int:
    """Number of trained scalars in `module`."""
    return sum(parameter.numel() for parameter in module.parameters())


def export_onnx(
    module: torch.nn.Module,
    inputs: Mapping[str, torch.Tensor],
    outputs: Sequence[str],
    path: Path,
    dynamic_shapes: dict[str, dict[int, str]] | None = None,
) -> float:
    """Export `module` to one self-contained, checked ONNX file.

    Args:
        module: The trained module; exported in evaluation mode.
        inputs: Example inputs by name, in the order of ``forward``.
        outputs: Output names.
        path: File to write.
        dynamic_shapes: Per input, axis to the name of its symbolic dimension.

    Returns:
        The largest absolute difference of any output between torch and ONNX Runtime.
    """
    module.eval()
    program = torch.onnx.export(
        module,
        tuple(inputs.values()),
        dynamo=True,
        optimize=False,
        opset_version=OPSET,
        input_names=list(inputs),
        output_names=list(outputs),
        dynamic_shapes=dynamic_shapes,
        verbose=False,
    )
    assert program is not None
    proto = ir.to_proto(_clean(program.model))
    proto.graph.ClearField("value_info")  # a converter would have to keep it true; shapes infer
    onnx.save(proto, path)
    onnx.checker.check_model(path, full_check=True)
    return _max_abs_diff(module, inputs, path)


def _clean(model: ir.Model) -> ir.Model:
    """Fold constants, drop what is unused, name what is left, and forget the source paths."""
    for _ in range(2):  # shapes allow folding, and folding makes more shapes known
        passes.ShapeInferencePass()(model)
        optimizer.fold_constants(model, input_size_limit=_FOLD, output_size_limit=_FOLD)
    model = rewriter.rewrite(
        model,
        pattern_rewrite_rules=[
            rules.remove_optional_bias_from_conv_rule,  # the exporter adds a bias of zeros
            rules.materialize_reshape_shape_rule,
            rules.no_op_transpose_rule,
        ],
    )
    Sequential(
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.RemoveUnusedNodesPass(),
    )(model)
    _name_by_module(model.graph)
    passes.ClearMetadataAndDocStringPass()(model)  # stack traces with paths of this machine
    model.producer_name, model.producer_version = "pytorch", torch.__version__
    return model


def _name_by_module(graph: ir.Graph) -> None:
    """Name nodes ``module.path/OpType``, and tensors after the node that makes or uses them."""
    seen: Counter[str] = Counter()
    fixed = {value.name for value in (*graph.inputs, *graph.outputs)}
    for node in graph:
        *modules, _ = ast.literal_eval(node.metadata_props.get(_SCOPES, "['', '']"))
        module = "" if modules[-1].startswith("_") else modules[-1]  # shape nodes have no module
        name = f"{module}/{node.op_type}".lstrip("/")
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}_{seen[name]}"
        for index, value in enumerate(node.outputs):
            if value.name not in fixed:
                value.name = f"{node.name}.out{index}"
    for node in graph:
        for index, operand in enumerate(node.inputs):
            if operand is not None and operand.is_initializer() and "val_" in str(operand.name):
                operand.name = f"{node.name}.in{index}"


def session(path: Path) -> ort.InferenceSession:
    """Open `path` in ONNX Runtime on one CPU thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _max_abs_diff(module: torch.nn.Module, inputs: Mapping[str, torch.Tensor], path: Path) -> float:
    with torch.no_grad():
        expected = module(*inputs.values())
    expected = expected if isinstance(expected, tuple) else (expected,)
    feeds = {name: tensor.numpy() for name, tensor in inputs.items()}
    actual = session(path).run(None, feeds)
    return max(
        float(np.abs(want.numpy() - got).max()) for want, got in zip(expected, actual, strict=True)
    )
