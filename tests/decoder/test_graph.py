"""The graph of a decoder: how its weights are stored, and what writing it costs."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.converts
pytest.importorskip("onnx_ir")

from converters import quantize  # noqa: E402
from converters.decoder import graph, names  # noqa: E402
from converters.decoder.weights import WeightFormat, WeightPlan  # noqa: E402
from converters.materialize import save  # noqa: E402
from converters.package import store_graph  # noqa: E402
from edge_sdk.bundle.blobs import BlobStore  # noqa: E402
from tests.decoder.random_weights import RandomWeights, llama  # noqa: E402
from tests.decoder.running import Runner  # noqa: E402

IDS = np.random.default_rng(1).integers(0, 128, (1, 20)).tolist()
INT4 = WeightPlan(WeightFormat(4, 32))
# A table of 256 KiB in int4: a blob of its own.
TABLE = llama(vocab=4096, hidden=128, intermediate=256)


class Rounded(RandomWeights):
    """The values that block weights stand for, as floats."""

    def __init__(self, architecture, wanted: WeightFormat) -> None:
        super().__init__(architecture)
        self._wanted = wanted

    def read(self, name: str):
        weight = super().read(name)
        if weight.ndim == 1:
            return weight
        wanted, width = self._wanted, weight.shape[1]
        blocks = quantize.blockwise(
            weight.T, wanted.bits, wanted.block_size, symmetric=wanted.symmetric
        )
        return quantize.dequantize(blocks, wanted.bits, width)


def run(model, folder: Path):
    return Runner(model, folder)(IDS, [20], range(20))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("bits", "block_size"), [(8, 32), (4, 32), (4, 128)])
def test_block_weights_compute_what_they_stand_for(
    tmp_path: Path, tied: bool, symmetric: bool, bits, block_size: int
) -> None:
    architecture = replace(llama(tied=tied), qkv_bias=True, output_bias=True, mlp_bias=True)
    wanted = WeightFormat(bits, block_size, symmetric)
    exact = run(graph.build(architecture, Rounded(architecture, wanted), graph.FLOAT32), tmp_path)
    model = graph.build(architecture, RandomWeights(architecture), WeightPlan(wanted))
    found = run(model, tmp_path)
    # What is left is the kernel's rounding of activations to int8.
    assert np.sqrt(np.square(found - exact).mean() / np.square(exact).mean()) < 0.03


@pytest.mark.parametrize(("block_size", "most"), [(32, 0.0), (128, 0.03)])
def test_rows_of_one_call_are_what_each_is_alone(tmp_path: Path, block_size: int, most: float):
    """Kernels of larger blocks round activations by the number of rows: a share of the spread."""
    architecture = llama(hidden=256, intermediate=512)
    plan = WeightPlan(WeightFormat(4, block_size))
    model = graph.build(architecture, RandomWeights(architecture), plan)
    ids = np.random.default_rng(2).integers(0, architecture.vocab, (4, 24))

    def forced(rows: np.ndarray) -> np.ndarray:
        """Logits [rows, tokens, vocab], one call per token."""
        step = Runner(model, tmp_path, batch=len(rows))
        calls = enumerate(rows.T, 1)
        return np.concatenate([step(t[:, None], [n] * len(rows), [0]) for n, t in calls], axis=1)

    together, alone = forced(ids), np.concatenate([forced(row[None]) for row in ids])
    assert np.sqrt(np.square(together - alone).mean()) <= most * alone.std()


def test_each_node_has_the_format_its_plan_says(tmp_path: Path) -> None:
    architecture = llama(tied=False)
    plan = WeightPlan(
        WeightFormat(4, 32),
        {"head": WeightFormat(8, 64), "layers.0.o": WeightFormat(32), "embed": WeightFormat(16)},
    )
    model = graph.build(architecture, RandomWeights(architecture), plan)
    found = {
        node.name: (node.attributes["bits"].as_int(), node.attributes["block_size"].as_int())
        for node in model.graph
        if node.op_type == "MatMulNBits"
    }
    others = set(names.nodes(architecture)) - {"head", "layers.0.o"}
    assert found == {"head": (8, 64), **dict.fromkeys(others, (4, 32))}
    assert model.graph.initializers["embed.weight"].dtype.itemsize == 2
    assert np.isfinite(run(model, tmp_path)).all()


def test_building_reads_no_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(self, name: str):
        raise AssertionError(f"{name} was read")

    monkeypatch.setattr(RandomWeights, "read", forbidden)
    model = graph.build(TABLE, RandomWeights(TABLE), INT4)
    with pytest.raises(AssertionError, match=r"embed was read"):
        model.graph.initializers["embed.weight"].const_value.numpy()


@pytest.mark.parametrize("bits", [4, 8, 16, 32])
def test_writing_holds_a_few_of_the_largest_weight_and_not_the_model(tmp_path: Path, bits) -> None:
    architecture = llama(layers=24, hidden=256, intermediate=768, vocab=2048, tied=False)
    weights = RandomWeights(architecture)
    sizes = {name: 4 * int(np.prod(s)) for name, s in names.shapes(architecture).items()}
    largest, total = max(sizes.values()), sum(sizes.values())
    bound = 4 * largest + 2**20  # a weight as read, stacked, quantized, and as bytes
    assert total > 6 * bound
    model = graph.build(architecture, weights, WeightPlan(WeightFormat(bits, 32, symmetric=False)))
    tracemalloc.start()
    try:
        save(model, tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < bound


def stored(model, folder: Path):
    blobs = BlobStore(folder)
    return {blob.digest: blob.size for blob in store_graph(blobs, model).weights}


@pytest.mark.parametrize("symmetric", [True, False])
def test_tied_table_is_one_blob(tmp_path: Path, symmetric: bool) -> None:
    plan = WeightPlan(WeightFormat(4, 32, symmetric))
    model = graph.build(TABLE, RandomWeights(TABLE), plan)
    sizes = stored(model, tmp_path)
    table = 4096 * 128 // 2
    assert sum(size >= table for size in sizes.values()) == 1
    externals = {
        name: model.graph.initializers[f"{name}.weight"].const_value for name in ("embed", "head")
    }
    assert externals["embed"].location == externals["head"].location


def test_int8_cache_shares_every_weight(tmp_path: Path) -> None:
    weights = RandomWeights(TABLE)
    ones = np.ones((TABLE.kv_heads, TABLE.head_dim), np.float32)
    scales = [graph.KvScales(ones, ones)] * TABLE.layers
    plain = stored(graph.build(TABLE, weights, INT4), tmp_path)
    int8 = stored(graph.build(TABLE, weights, INT4, kv="int8", kv_scales=scales), tmp_path)
    assert sum(size for digest, size in int8.items() if digest not in plain) < 300 * 1024


def test_changed_layer_changes_only_its_blobs(tmp_path: Path) -> None:
    architecture = llama(layers=3, hidden=512, heads=8, intermediate=1024)
    tuned = RandomWeights(architecture, changed=frozenset({"layers.1.down"}))
    first = stored(graph.build(architecture, RandomWeights(architecture), INT4), tmp_path)
    second = stored(graph.build(architecture, tuned, INT4), tmp_path)
    changed = {digest: size for digest, size in second.items() if digest not in first}
    assert len(changed) == 1
    assert sum(changed.values()) < 1.5 * 512 * 1024 / 2


def test_same_weights_give_the_same_blobs(tmp_path: Path) -> None:
    models = [graph.build(TABLE, RandomWeights(TABLE), INT4) for _ in range(2)]
    assert store_graph(BlobStore(tmp_path), models[0]) == store_graph(
        BlobStore(tmp_path), models[1]
    )


def test_layer_gives_what_its_nodes_multiply(tmp_path: Path) -> None:
    architecture = llama()
    weights = RandomWeights(architecture)
    session = Runner(graph.layer(architecture, weights, 1), tmp_path).session
    hidden = np.random.default_rng(0).standard_normal((1, 5, 64)).astype(np.float32)
    values = session.run(None, {"hidden": hidden})
    found = dict(zip([output.name for output in session.get_outputs()], values, strict=True))
    shapes = {name: value.shape for name, value in found.items()}
    assert shapes == {
        "output": (1, 5, 64),
        "layers.1.qkv.input": (1, 5, 64),
        "layers.1.o.input": (1, 5, 64),
        "layers.1.gate_up.input": (1, 5, 64),
        "layers.1.down.input": (1, 5, 160),
        "present.1.key": (1, 2, 5, 16),
        "present.1.value": (1, 2, 5, 16),
    }
    values_of = found["layers.1.qkv.input"] @ weights.read("layers.1.v").T
    cached = found["present.1.value"].transpose(0, 2, 1, 3).reshape(1, 5, 32)
    np.testing.assert_allclose(cached, values_of, atol=1e-5)


class Merged(RandomWeights):
    """Weights with an adapter added to them."""

    def __init__(self, architecture, adapter) -> None:
        super().__init__(architecture)
        self._delta = {}
        for node in {name.removeprefix("lora.").rpartition(".")[0] for name in adapter}:
            delta = (adapter[f"lora.{node}.a"] @ adapter[f"lora.{node}.b"]).T
            for part in names.parts(node):
                rows = self.shape(part)[0]
                self._delta[part], delta = delta[:rows], delta[rows:]

    def read(self, name: str):
        return super().read(name) + self._delta.get(name, np.float32(0))


def adapter_for(model, rank: int):
    rng = np.random.default_rng(3)
    return {
        value.name: 0.2
        * rng.standard_normal(
            [size if isinstance(size, int) else rank for size in value.shape], np.float32
        )
        for value in model.graph.inputs
        if value.name.startswith("lora.")
    }


def test_adapter_equals_merged_weights(tmp_path: Path) -> None:
    architecture = replace(llama(), qkv_bias=True)
    weights = RandomWeights(architecture)
    nodes = [node for node in names.nodes(architecture) if node != "head"]
    model = graph.build(architecture, weights, graph.FLOAT32, adapted=nodes)
    adapter = adapter_for(model, rank=3)
    assert len(adapter) == 2 * len(nodes)
    found = Runner(model, tmp_path)(IDS, [20], range(20), adapter)
    merged = graph.build(architecture, Merged(architecture, adapter), graph.FLOAT32)
    np.testing.assert_allclose(found, run(merged, tmp_path), atol=1e-4)


def test_adapter_of_rank_0_is_the_base(tmp_path: Path) -> None:
    weights = RandomWeights(TABLE)
    base = run(graph.build(TABLE, weights, INT4), tmp_path)
    model = graph.build(TABLE, weights, INT4, adapted=["layers.0.qkv", "layers.1.down"])
    adapter = adapter_for(model, rank=0)
    assert [value.shape for value in adapter.values()] == [(128, 0), (0, 256), (256, 0), (0, 128)]
    np.testing.assert_array_equal(Runner(model, tmp_path)(IDS, [20], range(20), adapter), base)


def test_adapted_graph_shares_every_weight(tmp_path: Path) -> None:
    weights = RandomWeights(TABLE)
    plain = stored(graph.build(TABLE, weights, INT4), tmp_path)
    adapted = graph.build(TABLE, weights, INT4, adapted=names.nodes(TABLE))
    assert stored(adapted, tmp_path) == plain


def test_window_wider_than_the_context_is_none() -> None:
    def windows(architecture) -> list[int]:
        model = graph.build(architecture, RandomWeights(architecture), INT4)
        nodes = [node for node in model.graph if node.op_type == "GroupQueryAttention"]
        return [node.attributes.get_int("local_window_size", -1) for node in nodes]

    assert windows(replace(llama(), sliding_window=64)) == [-1, -1]
    limited = replace(llama(), sliding_window=63, unwindowed_layers=frozenset({0}))
    assert windows(limited) == [-1, 63]
