"""The variant record: everything about one variant that is not a weight.

One JSON document (``variant.json``) per manifest. Its shapes already carry
several graphs with wiring (encoder-decoder, prefill / decode, pipeline
stages), opaque engine files, recurrent state, adapters and tokenizers, so that
new kinds of model add code and not format versions.

Only values that are a function of source, data, recipe and tool versions stand
here: the record is part of the variant's identity. What a clock or the kernel
measured (latency, RSS) stands in :mod:`edge_sdk.bundle.measurements`.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

SCHEMA = "org.edge-sdk.variant/1"


class Frozen(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the structs on the wire: immutable, keyword-only, no unknown fields."""


class TensorSpec(Frozen, frozen=True, kw_only=True):
    """Name, element type and shape of a graph input or output.

    ``shape`` holds an ``int`` for a fixed and a ``str`` for a symbolic dimension;
    ``None`` as a whole means that the rank is unknown. ``dtype`` is a numpy name
    (``float32``, ``int64``, ``bfloat16``, ``string``).
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...] | None = ()
    required: bool = True


class Blob(Frozen, frozen=True, kw_only=True):
    """A reference to a content-addressed blob."""

    digest: str
    size: int


class ArrayRef(Frozen, frozen=True, kw_only=True):
    """A C-contiguous little-endian array inside a blob."""

    blob: Blob
    dtype: str
    shape: tuple[int, ...]
    offset: int = 0


class Graph(Frozen, frozen=True, kw_only=True):
    """One executable graph.

    Attributes:
        name: Unique within the variant (``main``, ``main-kv8``, ``encoder``, ``stage-0`` …); the
            graph that adapters are for is named like the one without, and ``-lora``.
        format: ``onnx`` (a graph over weight blobs) or an opaque file
            format (``tflite``, ``tensorrt-plan`` …).
        parts: The file's bytes: one blob for a graph, several in order for an
            opaque file that was split at its buffer boundaries.
        weights: Blobs the graph refers to by digest as external data.
        inputs: Graph inputs in the source's order.
        outputs: Graph outputs in the source's order.
    """

    name: str
    format: str
    parts: tuple[Blob, ...]
    weights: tuple[Blob, ...] = ()
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()


class Wire(Frozen, frozen=True, kw_only=True):
    """An edge between graphs: an output that feeds another graph's input."""

    source_graph: str
    output: str
    target_graph: str
    input: str


class State(Frozen, frozen=True, kw_only=True):
    """A recurrence: ``output`` of one call is ``input`` of the next.

    ``initial`` is the value before the first call; ``None`` means zeros.
    """

    input: str
    output: str
    initial: ArrayRef | None = None


class File(Frozen, frozen=True, kw_only=True):
    """A side file of the variant (tokenizer, labels, licence)."""

    path: str
    blob: Blob


class Step(Frozen, frozen=True, kw_only=True):
    """One step of pre- or post-processing, or one pass of a recipe.

    ``op`` names it in a registry; ``options`` are that step's own, validated there.
    """

    op: str
    options: dict[str, Any] = {}


class Adapter(Frozen, frozen=True, kw_only=True):
    """A low-rank adapter over the variant's graphs, selectable per request.

    Attributes:
        name: Unique within the variant.
        arrays: Graph input (``lora.{node}.a`` [in, rank], ``lora.{node}.b`` [rank, out])
            -> array of the input's type, the adapter's scale in it; nodes that it leaves
            alone have none.
    """

    name: str
    arrays: dict[str, ArrayRef]

    @property
    def parts(self) -> tuple[Blob, ...]:
        """The blobs that its arrays are in."""
        return tuple(dict.fromkeys(array.blob for array in self.arrays.values()))


class Engine(Frozen, frozen=True, kw_only=True):
    """The engine a variant was made for, with its providers in order and options."""

    name: str
    providers: tuple[str, ...] = ()
    options: dict[str, str] = {}
    version: str = ""


class Recipe(Frozen, frozen=True, kw_only=True):
    """How the graphs were made from the source: passes in order, for one engine."""

    name: str
    steps: tuple[Step, ...] = ()
    engine: str = "onnx"
    forced: bool = False


class MemoryPlan(Frozen, frozen=True, kw_only=True):
    """Predicted peak memory of one loaded variant, in bytes.

    Attributes:
        weights_mapped: Weights mapped from files; shared and evictable.
        weights_private: Weights an engine copies to its heap when it packs them.
        activations: Peak of live activations at ``reference_shapes``.
        engine: The engine's own code and data.
        kv_per_token: KV cache per token of context (decoders).
        reference_shapes: Symbolic dimension -> value the prediction was made for.
    """

    weights_mapped: int
    weights_private: int
    activations: int
    engine: int
    kv_per_token: int = 0
    reference_shapes: dict[str, int] = {}

    @property
    def peak(self) -> int:
        """Predicted peak resident memory without KV cache, in bytes."""
        return self.weights_mapped + self.weights_private + self.activations + self.engine


class NodeCost(Frozen, frozen=True, kw_only=True):
    """Cost of one node, for planners: work, weight and live activation bytes."""

    node: str
    op: str
    flops: int
    weight_bytes: int
    activation_bytes: int


class Unquantized(Frozen, frozen=True, kw_only=True):
    """A node left in higher precision, and why."""

    node: str
    op: str
    reason: str


class Agreement(Frozen, frozen=True, kw_only=True):
    """How a variant's outputs compare with the fp32 source's on the same inputs.

    Attributes:
        samples: Number of samples compared.
        cosine: Mean cosine similarity over samples (first float output).
        max_error: Largest absolute difference over all outputs.
        top1: Share of samples whose argmax is the same, for class-like outputs.
        nearest: Share of samples whose nearest neighbour is the same, for embeddings.
        metrics: Task metric -> (source value, variant value), where labels were given.
        drop: The figure that ``--max-drop`` limited.
        drop_of: What ``drop`` is (``1 - cosine``, ``top1 accuracy`` …).
    """

    samples: int
    cosine: float
    max_error: float
    drop: float
    drop_of: str
    top1: float | None = None
    nearest: float | None = None
    metrics: dict[str, tuple[float, float]] = {}


class Provenance(Frozen, frozen=True, kw_only=True):
    """Where the variant came from: source, data and tool versions, by digest."""

    source_name: str
    source_digest: str
    data_digest: str | None
    tools: dict[str, str]
    data_origin: str = "user"
    licence: str | None = None
    source_metrics: dict[str, float] = {}


class Sampling(Frozen, frozen=True, kw_only=True):
    """How the next token is drawn; a model's own defaults, or a request's.

    Filters apply in this order: repetition penalty, temperature, top-k, top-p, min-p.

    Attributes:
        temperature: Divides the logits; 0 takes the likeliest token.
        top_k: Keep this many likeliest tokens; 0 keeps all.
        top_p: Keep the smallest set of tokens whose probabilities reach this sum.
        min_p: Drop tokens below this share of the likeliest token's probability.
        repetition_penalty: Divides positive, multiplies negative logits of tokens seen (CTRL).
        seed: Seed of the draws; ``None`` takes a fresh one.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None


class Generation(Frozen, frozen=True, kw_only=True):
    """What the runtime needs to know of a decoder beside its graphs.

    Attributes:
        layers: Number of layers, each with a key and a value cache.
        kv_heads: Heads of the caches.
        head_dim: Width of a head.
        vocab: Size of the logits.
        context: Longest context in tokens.
        eos: Tokens that end a turn.
        bos: Token that begins a text, prepended where ``add_bos``.
        add_bos: Whether a prompt begins with ``bos``.
        chat_template: Jinja source of the chat template; empty where there is none.
        tokens: Special tokens a template may name: ``bos_token``, ``eos_token`` …
        sampling: The model's own defaults.
    """

    layers: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int
    eos: tuple[int, ...] = ()
    bos: int | None = None
    add_bos: bool = False
    chat_template: str = ""
    tokens: dict[str, str] = {}
    sampling: Sampling = Sampling()


class Decoding(Frozen, frozen=True, kw_only=True):
    """How an encoder-decoder model writes: what the runtime needs beside its graphs.

    The graphs are ``encoder`` (the caller's inputs to ``present.{i}.encoder.key`` / ``.value``,
    keys and values of the cross attention, computed once per input) and ``decoder``
    (``decoder_input_ids`` and growing ``past_key_values.{i}.decoder.key`` / ``.value`` to
    ``logits``), wired and bound as the record says.

    Attributes:
        start: Tokens that the output begins with: the decoder's start token, and what is
            forced behind it.
        eos: Tokens that end the output.
        context: Most tokens of the output, ``start`` included.
        max_length: The model's own default for that; ``None`` for all of ``context``.
        min_length: Tokens, ``start`` included, before which ``eos`` is not drawn.
        suppress: Tokens that are never drawn.
        begin_suppress: Tokens that are not drawn first.
        no_repeat_ngram: No run of so many tokens appears twice; 0 allows it.
        encoder_no_repeat_ngram: No run of so many tokens of the input appears in the output.
        bad_words: Runs of tokens that do not appear.
        forced: How many tokens of ``start`` count as written.
        forced_eos: The last token that a limit leaves room for is one that ends the output.
        languages: Language -> its token, where the output's second token says the language;
            a caller who names none gets the likeliest.
        tasks: Task (``transcribe``, ``translate``) -> its token, behind the language's.
        end_of_start: Tokens behind language and task.
        sampling: The model's own defaults.
        recipes: Graph -> how it was made, where the graphs were made differently.
    """

    start: tuple[int, ...]
    eos: tuple[int, ...]
    context: int
    max_length: int | None = None
    min_length: int = 0
    suppress: tuple[int, ...] = ()
    begin_suppress: tuple[int, ...] = ()
    no_repeat_ngram: int = 0
    encoder_no_repeat_ngram: int = 0
    bad_words: tuple[tuple[int, ...], ...] = ()
    forced: int = 0
    forced_eos: bool = False
    languages: dict[str, int] = {}
    tasks: dict[str, int] = {}
    end_of_start: tuple[int, ...] = ()
    sampling: Sampling = Sampling()
    recipes: dict[str, Recipe] = {}


class GoldenCase(Frozen, frozen=True, kw_only=True):
    """Inputs and expected outputs for the device's self-test.

    ``atol`` / ``rtol`` bound each element: ``|y - expected| <= atol + rtol * |expected|``.
    ``stride`` spares what a new version costs on the wire: of each row of an output (its last
    axis) only every so manieth element is expected, from the first on.
    """

    graph: str
    inputs: dict[str, ArrayRef]
    outputs: dict[str, ArrayRef]
    atol: float
    rtol: float
    stride: Annotated[int, msgspec.Meta(ge=1)] = 1


class VariantRecord(Frozen, frozen=True, kw_only=True):
    """One variant of a model for one device profile."""

    name: str
    version: str
    profile: str
    task: str
    kind: str
    graphs: tuple[Graph, ...]
    engine: Engine
    recipe: Recipe
    memory: MemoryPlan
    agreement: Agreement
    provenance: Provenance
    schema: str = SCHEMA
    wiring: tuple[Wire, ...] = ()
    states: tuple[State, ...] = ()
    preprocess: tuple[Step, ...] = ()
    postprocess: tuple[Step, ...] = ()
    files: tuple[File, ...] = ()
    adapters: tuple[Adapter, ...] = ()
    costs: tuple[NodeCost, ...] = ()
    unquantized: tuple[Unquantized, ...] = ()
    golden: tuple[GoldenCase, ...] = ()
    notes: tuple[str, ...] = ()
    generation: Generation | None = None
    decoding: Decoding | None = None

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs that the caller feeds: neither wired nor recurrent."""
        wired = {(wire.target_graph, wire.input) for wire in self.wiring}
        return tuple(
            spec
            for graph in self.graphs
            for spec in graph.inputs
            if (graph.name, spec.name) not in wired
        )

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Outputs that reach the caller: those not consumed by another graph."""
        wired = {(wire.source_graph, wire.output) for wire in self.wiring}
        return tuple(
            spec
            for graph in self.graphs
            for spec in graph.outputs
            if (graph.name, spec.name) not in wired
        )

    def blobs(self) -> tuple[Blob, ...]:
        """Every blob the variant needs, each once, in order of first use."""
        found: dict[str, Blob] = {}
        for graph in self.graphs:
            for blob in (*graph.parts, *graph.weights):
                found.setdefault(blob.digest, blob)
        for adapter in self.adapters:
            for blob in adapter.parts:
                found.setdefault(blob.digest, blob)
        for file in self.files:
            found.setdefault(file.blob.digest, file.blob)
        arrays = [state.initial for state in self.states if state.initial]
        for case in self.golden:
            arrays += [*case.inputs.values(), *case.outputs.values()]
        for array in arrays:
            found.setdefault(array.blob.digest, array.blob)
        return tuple(found.values())
