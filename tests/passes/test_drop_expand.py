"""A tensor that is expanded to meet one as large is broadcast instead."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from converters.passes.drop_expand import DropExpand
from converters.passes.fuse_attention import FuseAttention
from tests.passes.models import Array, graph, improved, normal, ops, untouched
from tests.passes.networks import inferred
from tests.passes.test_fuse_attention import GUARDED, GUARDS, attention

ONE = np.array(1, np.float32)


def expanded(body: str, *, target: str = "[N,S]", further: str = "", **arrays: Array) -> ir.Model:
    """``keep`` [N, 1] is expanded to the shape of ``x`` or ``z``, and ``body`` uses ``wide``."""
    source = "x" if target == "[N,S]" else "z"
    return inferred(
        graph(
            f"(float[N,S] x, float[N,T] z, float[N,1] keep) => (float y{further})",
            f"sizes = Shape ({source}) wide = Expand (keep, sizes) {body}",
            **({"one": ONE, "row": normal(1, 3)} | arrays),
        )
    )


def test_mask_of_attention_is_computed_for_one_query() -> None:
    model = attention(", int64[N,S] keep", mask=GUARDED, **GUARDS)
    keep = np.array([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])
    feeds = {"x": normal(2, 5, 8), "keep": keep}
    after = improved(DropExpand(), model, feeds)
    assert ops(after)["Expand"] == 0
    assert ops(improved(FuseAttention(), inferred(after), feeds))["Attention"] == 1


@pytest.mark.parametrize(
    "body",
    [
        "y = Mul (wide, x)",
        "m = Sub (one, wide) far = Cast <to = 9> (m) w = Where (far, one, m) y = Add (x, w)",
        "a = Mul (x, wide) n = Neg (wide) y = Add (a, n)",
    ],
)
def test_goes_where_all_that_reads_it_meets_a_tensor_as_large(body: str) -> None:
    assert ops(improved(DropExpand(), expanded(body)))["Expand"] == 0


@pytest.mark.parametrize(
    "model",
    [
        expanded("y = Neg (wide)"),
        expanded("y = Mul (wide, x)", target="[N,T]"),
        expanded("y = Mul (wide, row)"),
        expanded("y = Mul (wide, wide)"),
        expanded("n = Neg (wide) y = Mul (wide, n)"),
        expanded("y = Mul (wide, x)", further=", float wide"),
        expanded("n = Neg (wide) y = Mul (n, x) s = ReduceSum (n)", further=", float s"),
    ],
    ids=[
        "seen as it is", "another length", "a row", "only itself", "only what came of it",
        "an output", "summed",
    ],
)  # fmt: skip
def test_left_alone(model: ir.Model) -> None:
    assert untouched(DropExpand(), model)
