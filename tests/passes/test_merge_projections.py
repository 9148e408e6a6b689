"""Queries, keys and values become one product, cut and split by head."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from converters.passes.merge_projections import MergeProjections
from tests.passes.models import graph, improved, normal, ops, untouched

TRANSPOSED = "0, 2, 3, 1"
CUT = "m{0} = MatMul (x, w{0}) {bias} h{0} = Reshape ({cut}, shape)"
BIAS = "b{0} = Add (m{0}, c{0})"


def attention(
    *, bias: bool = True, keys: str = TRANSPOSED, wide: int = 8, outputs: str = "float[N,2,T,4] y"
) -> ir.Model:
    parts = [
        CUT.format(
            name, bias=BIAS.format(name) if bias else "", cut=f"{'b' if bias else 'm'}{name}"
        )
        for name in "qkv"
    ]
    weights = {f"w{name}": normal(8, 8, seed=i) for i, name in enumerate("qkv")}
    biases = {f"c{name}": normal(8, seed=i) for i, name in enumerate("qkv")} if bias else {}
    if wide != 8:
        weights["wv"], biases["cv"] = normal(8, wide), normal(wide)
        parts[2] = parts[2].replace(", shape", ", wide")
    return graph(
        f"(float[N,T,8] x) => ({outputs})",
        f"""
        {" ".join(parts)}
        q = Transpose <perm = [0, 2, 1, 3]> (hq)
        k = Transpose <perm = [{keys}]> (hk)
        v = Transpose <perm = [0, 2, 1, 3]> (hv)
        {"" if keys == TRANSPOSED else "kt = Transpose <perm = [0, 1, 3, 2]> (k)"}
        s = MatMul (q, {"k" if keys == TRANSPOSED else "kt"})
        p = Softmax (s)
        y = MatMul (p, v)
        """,
        shape=np.array([0, -1, 2, 4]),
        **({"wide": np.array([0, 0, 2, wide // 2])} if wide != 8 else {}),
        **weights,
        **biases,
    )


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("keys", [TRANSPOSED, "0, 2, 1, 3"])
def test_three_projections_become_one_product(bias: bool, keys: str) -> None:
    after = improved(MergeProjections(), attention(bias=bias, keys=keys))
    assert ops(after)["MatMul"] == 3
    assert ops(after)["Reshape"] == 1


def test_merged_product_goes_by_the_first_name() -> None:
    model = attention()
    first = next(node for node in model.graph if node.op_type == "MatMul")
    first.name = "query"
    after = improved(MergeProjections(), model)
    assert [node.op_type for node in after.graph if node.name == "query"] == ["MatMul"]


def test_values_of_another_width_stay_on_their_own() -> None:
    after = improved(MergeProjections(), attention(wide=16, outputs="float[N,2,T,8] y"))
    assert ops(after)["MatMul"] == 4


@pytest.mark.parametrize(
    "model",
    [
        attention(outputs="float[N,2,T,4] y, float[N,T,8] mq, float[N,T,8] mk, float[N,T,8] mv"),
        attention(outputs="float[N,2,T,4] y, float[N,2,T,4] q, float[N,2,4,T] k, float[N,2,T,4] v"),
        graph(
            "(float[N,T,8] x) => (float[N,T,8] a, float[N,T,8] b)",
            "a = MatMul (x, wa) b = MatMul (x, wb)",
            wa=normal(8, 8),
            wb=normal(8, 8),
        ),
    ],
    ids=["products are outputs", "heads are outputs", "not cut into heads"],
)
def test_left_alone(model: ir.Model) -> None:
    assert untouched(MergeProjections(), model)
