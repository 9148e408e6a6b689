"""Small models as files with the data that belongs to them, one of each kind that users bring."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from converters.passes.static_qdq import StaticQdq
from tests.passes.models import Array, feeds_for, graph, normal, run
from tests.passes.networks import calibrated, convolutional, inferred, with_statistics

HIDDEN, HEADS, WIDE, WORDS = 128, 4, 512, 300


def write(model: ir.Model, path: Path) -> Path:
    """The model as one file, with a folder of its own for what lies beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(ir.to_proto(model), path)
    return path


def classifier(folder: Path) -> Path:
    """A CNN of 100 k parameters with ``data.npz`` and labels it was fitted to."""
    features = """
        c1 = Conv <pads = [1,1,1,1]> (x, w1, b1) r1 = Relu (c1)
        c2 = Conv <pads = [1,1,1,1], strides = [2,2]> (r1, w2, b2) r2 = Relu (c2)
        c3 = Conv <pads = [1,1,1,1], strides = [2,2]> (r2, w3, b3) r3 = Relu (c3)
        p = GlobalAveragePool (r3) f = Flatten (p)
    """
    arrays: dict[str, Array] = {
        "w1": normal(32, 3, 3, 3, seed=1, scale=0.3),
        "w2": normal(64, 32, 3, 3, seed=2, scale=0.08),
        "w3": normal(128, 64, 3, 3, seed=3, scale=0.05),
        **{f"b{i}": normal(16 << i, seed=3 + i, scale=0.1) for i in (1, 2, 3)},
    }
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 160)
    prototypes = normal(4, 3, 16, 16, seed=7)
    images = (prototypes[labels] + 0.7 * normal(160, 3, 16, 16, seed=8)).astype(np.float32)
    body = graph("(float[N,3,16,16] x) => (float[N,128] f)", features, **arrays)
    found = run(body, {"x": images})["f"].astype(np.float64)
    design = np.hstack([found, np.ones((160, 1))])
    targets = np.eye(4)[labels] * 8 - 4
    solved = np.linalg.solve(design.T @ design + 1e-3 * np.eye(129), design.T @ targets)
    arrays |= {"wf": solved[:128].astype(np.float32), "bf": solved[128].astype(np.float32)}
    head = "y = Gemm (f, wf, bf)"
    model = graph("(float[N,3,16,16] x) => (float[N,4] y)", features + head, **arrays)
    path = write(model, folder / "classifier.onnx")
    np.savez(folder / "data.npz", x=images, labels=labels)
    (folder / "labels.json").write_text(json.dumps(["oak", "ash", "elm", "fir"]))
    return path


def _layer(index: int) -> str:
    """One post-norm transformer layer, with masked attention."""
    i = index
    return f"""
        q{i} = MatMul (x{i}, wq{i}) k{i} = MatMul (x{i}, wk{i}) v{i} = MatMul (x{i}, wv{i})
        q4{i} = Reshape (q{i}, split) qt{i} = Transpose <perm = [0,2,1,3]> (q4{i})
        k4{i} = Reshape (k{i}, split) kt{i} = Transpose <perm = [0,2,3,1]> (k4{i})
        v4{i} = Reshape (v{i}, split) vt{i} = Transpose <perm = [0,2,1,3]> (v4{i})
        raw{i} = MatMul (qt{i}, kt{i}) scaled{i} = Mul (raw{i}, eighth)
        scores{i} = Add (scaled{i}, bias) p{i} = Softmax <axis = -1> (scores{i})
        mix{i} = MatMul (p{i}, vt{i}) back{i} = Transpose <perm = [0,2,1,3]> (mix{i})
        ctx{i} = Reshape (back{i}, merge) o{i} = MatMul (ctx{i}, wo{i})
        a{i} = Add (o{i}, x{i}) n{i} = LayerNormalization (a{i}, one, nil)
        f{i} = MatMul (n{i}, w1{i}) g{i} = Relu (f{i}) h{i} = MatMul (g{i}, w2{i})
        r{i} = Add (h{i}, n{i}) x{i + 1} = LayerNormalization (r{i}, one, nil)
    """


def encoder(folder: Path) -> Path:
    """A two-layer text encoder with ``tokenizer.json`` and ``sentences.jsonl``."""
    arrays: dict[str, Array] = {
        "table": normal(WORDS, HIDDEN, seed=99),
        "split": np.array([0, 0, HEADS, HIDDEN // HEADS]),
        "merge": np.array([0, 0, HIDDEN]),
        "one": np.ones(HIDDEN, np.float32),
        "nil": np.zeros(HIDDEN, np.float32),
        "eighth": np.array((HIDDEN // HEADS) ** -0.5, np.float32),
        "unit": np.array(1, np.float32),
        "far": np.array(-1e4, np.float32),
        "axes": np.array([1, 2]),
    }
    for i in range(2):
        shapes = dict.fromkeys(("wq", "wk", "wv", "wo"), (HIDDEN, HIDDEN))
        shapes |= {"w1": (HIDDEN, WIDE), "w2": (WIDE, HIDDEN)}
        for j, (name, shape) in enumerate(shapes.items()):
            arrays[f"{name}{i}"] = normal(*shape, seed=10 * i + j, scale=shape[0] ** -0.5)
    body = f"""
        x0 = Gather (table, input_ids)
        m = Cast <to = 1> (attention_mask) m4 = Unsqueeze (m, axes)
        off = Sub (unit, m4) bias = Mul (off, far)
        {_layer(0)} {_layer(1)} tokens = Identity (x2)
    """
    signature = f"(int64[N,S] input_ids, int64[N,S] attention_mask) => (float[N,S,{HIDDEN}] tokens)"
    path = write(graph(signature, body, **arrays), folder / "encoder.onnx")
    tokenizer(folder / "tokenizer.json")
    random = np.random.default_rng(1)
    sentences = (random.integers(2, WORDS, random.integers(4, 20)) for _ in range(80))
    lines = (json.dumps({"text": " ".join(f"w{n}" for n in s)}) for s in sentences)
    (folder / "sentences.jsonl").write_text("\n".join(lines))
    return path


def tokenizer(path: Path) -> None:
    """One token per word ``w2 … w299``; everything else is unknown."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"[PAD]": 0, "[UNK]": 1, **{f"w{n}": n for n in range(2, WORDS)}}
    found = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    found.pre_tokenizer = pre_tokenizers.Whitespace()
    found.save(str(path))


def recurrent(folder: Path) -> Path:
    """A GRU step with its state, and ``data.npz`` of 12 sequences of 10 frames."""
    size, width = 96, 40
    body = """
        ys, hn = GRU <hidden_size = 96, linear_before_reset = 1> (x, w, r, b, , h0)
        last = Squeeze (hn, first) z = MatMul (last, wo) y = Sigmoid (z)
    """
    model = graph(
        f"(float[1,1,{width}] x, float[1,1,{size}] h0) => (float[1,8] y, float[1,1,{size}] hn)",
        body,
        w=normal(1, 3 * size, width, seed=1, scale=0.2),
        r=normal(1, 3 * size, size, seed=2, scale=0.1),
        b=normal(1, 6 * size, seed=3, scale=0.1),
        wo=normal(size, 8, seed=4, scale=0.3),
        first=np.array([0]),
    )
    path = write(model, folder / "recurrent.onnx")
    np.savez(folder / "data.npz", x=normal(12, 10, 1, 1, width, seed=5))
    return path


def branching(folder: Path) -> Path:
    """``If`` on a 0-d integer input, with weights in both branches."""
    body = """
        zero = Constant <value_int = 0> () is = Equal (mode, zero)
        y = If (is) <
            then_branch = g1 () => (float[N,32] a) { a0 = MatMul (x, w1) a = Relu (a0) },
            else_branch = g2 () => (float[N,32] b) { b0 = MatMul (x, w2) b = Tanh (b0) }
        >
    """
    weights = {name: normal(160, 32, seed=i, scale=0.1) for i, name in enumerate(("w1", "w2"))}
    model = graph("(float[N,160] x, int64 mode) => (float[N,32] y)", body, **weights)
    return write(model, folder / "branching.onnx")


def quantized(folder: Path) -> Path:
    """A residual CNN that already is int8, as QDQ."""
    model, statistics = calibrated(convolutional, (1, 3, 16, 16))
    after = ir.from_proto(ir.to_proto(model))
    with_statistics(StaticQdq, statistics)(after)
    inferred(after)
    return write(after, folder / "quantized.onnx")


def two_inputs(folder: Path) -> Path:
    """An int32 and a float input, a 0-d gain, two outputs, and weights in ``weights.bin``."""
    body = """
        e = Gather (table, ids) m = ReduceMean <axes = [1], keepdims = 0> (e)
        both = Concat <axis = 1> (m, x) h0 = MatMul (both, w1) h = Relu (h0)
        z = MatMul (h, w2) y = Mul (z, gain) best = ArgMax <axis = 1, keepdims = 0> (y)
    """
    model = graph(
        "(int32[N,S] ids, float[N,64] x, float gain) => (float[N,12] y, int64[N] best)",
        body,
        table=normal(500, 64, seed=1),
        w1=normal(128, 256, seed=2, scale=0.1),
        w2=normal(256, 12, seed=3, scale=0.1),
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "two-inputs.onnx"
    onnx.save(
        ir.to_proto(model), path, save_as_external_data=True, location="weights.bin",
        size_threshold=1024,
    )  # fmt: skip
    return path


def feeds(path: Path, seed: int = 0, **sizes: int) -> dict[str, Array]:
    """Random inputs for a model file."""
    return feeds_for(ir.load(path), seed, **sizes)
