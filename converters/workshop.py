"""Builds candidates of one source and keeps them, so that profiles share the work.

All files lie in one folder: the prepared graph's weights are written once, and
a candidate refers to them and adds only the tensors its recipe made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import onnx_ir as ir

from converters import compare
from converters.calibration.collect import collect
from converters.calibration.statistics import Statistics
from converters.dataset import Dataset, zero_states
from converters.materialize import complaint, is_external, open_path, save
from converters.measure import footprint
from converters.metrics import Metric
from converters.passes.base import Context, GraphPass, build, each_graph
from converters.passes.fold_constants import DRAWING
from converters.source import Source
from converters.target import HOST_ENGINES, Format, Target, format_of
from edge_sdk.bundle.record import Agreement, Recipe, Step, Unquantized
from edge_sdk.errors import ConversionError, EdgeSdkError, EngineError, SourceError
from edge_sdk.runtime.engine import Session, SessionOptions

# Rewrites are exact in real arithmetic: what float32 leaves is rounding.
REWRITE_DROP = 1e-4
FAITHFUL_SAMPLES = 4
# Elsewhere than on ARM, ONNX Runtime turns int8 activations into uint8 unless it is told to let
# them be, and leaves some layers in float: that is not what a device for int8 computes.
INT8_STAYS = {"session.qdqisint8allowed": "1"}


@dataclass(frozen=True)
class Built:
    """A recipe applied to the source.

    Attributes:
        recipe: The recipe.
        path: The file that its engine opens; an ONNX graph's large tensors are external, in
            the same folder.
        size_bytes: Graph and weights as they would ship.
        format: Format of that file.
        lowered_from: The ONNX graph that a file in another format was made of.
        effective: The steps after the preparation that changed something.
        unquantized: Nodes left in higher precision, with the reason.
        notes: What passes had to say.
        statistics: The activation statistics the recipe used.
    """

    recipe: Recipe
    path: Path
    size_bytes: int
    format: Format = "onnx"
    lowered_from: Path | None = None
    effective: tuple[Step, ...] = ()
    unquantized: tuple[Unquantized, ...] = ()
    notes: tuple[str, ...] = ()
    statistics: Statistics = field(default_factory=Statistics)

    @property
    def host_engine(self) -> str:
        """The engine that runs it on this machine; ``recipe.engine`` does on the device."""
        return HOST_ENGINES[self.format]

    @property
    def graph(self) -> Path:
        """The ONNX graph that it is, or was lowered from: for arithmetic over its nodes."""
        return self.lowered_from or self.path


class Workshop:
    """Builds, opens and compares candidates of one source.

    Args:
        source: The model.
        calibration: Samples that ranges and scales are taken from.
        evaluation: Samples that candidates are compared on.
        folder: Where graphs are written; the caller removes it.
        metric: Task metric, where the data has labels.
        threads: Intra-op threads while comparing.
    """

    def __init__(
        self,
        source: Source,
        calibration: Dataset,
        evaluation: Dataset,
        folder: Path,
        *,
        metric: Metric | None = None,
        threads: int = 1,
    ) -> None:
        self.source = source
        self.calibration = calibration
        self.evaluation = evaluation
        self.folder = folder
        self.metric = metric
        self.options = SessionOptions(threads=threads)
        session = open_path(source.path, self.options)
        self.reference = self._run(session, evaluation)
        self._check_repeatable(session)
        self._initial = zero_states(session.inputs, source.states)
        self._prepared: dict[bytes, tuple[ir.Model, Context]] = {}
        self._statistics: dict[bytes, Statistics] = {}
        self._smoothed: dict[bytes, tuple[ir.Model, Context, bool]] = {}
        self._built: dict[tuple[Format, bytes], Built] = {}
        self._agreement: dict[tuple[Path, int], Agreement] = {}

    def source_candidate(self, recipe: Recipe) -> Built:
        """The source as it is, for the floor no candidate may fall below."""
        size = self.source.graph_bytes or self.source.size_bytes
        return Built(recipe, self.source.path, size)

    def original_candidate(self, target: Target) -> Built | None:
        """The user's own file, if the source's graph was made of it and the engine opens it."""
        original = self.source.original
        if original is None or target.format != "tflite" or not target.runs_here:
            return None
        recipe = Recipe(name=target.named("source"), engine=target.choice.name)
        size = original.stat().st_size
        return Built(recipe, original, size, format="tflite", lowered_from=self.source.path)

    def open(self, built: Built, options: SessionOptions | None = None) -> Session:
        """Opens a candidate with the engine that runs its format here.

        Raises:
            MissingEngineError: That engine's library is not installed.
            EngineError: The engine refused the candidate.
        """
        options = options or self.options
        if built.host_engine == "onnx" and _has_int8_activations(built):
            options = replace(options, options={**INT8_STAYS, **options.options})
        return open_path(built.path, options, built.host_engine)

    def use_statistics(self, prepared: tuple[Step, ...], statistics: Statistics) -> None:
        """Takes statistics from a base bundle instead of collecting them."""
        self._statistics[_key(prepared)] = statistics

    def prepared(self, steps: tuple[Step, ...]) -> tuple[ir.Model, Context]:
        """The float graph after the rewrites that hold for this model, and their notes.

        A rewrite that raises, or after which the outputs differ, is left out.
        """
        key = _key(steps)
        if key not in self._prepared:
            context = Context()
            model = self._attempt(self.source.model.clone(), steps, context)
            if not self._is_faithful(model, f"prepared-{len(self._prepared)}"):
                model = self._one_by_one(steps, context)
                save(model, self.folder, f"prepared-{len(self._prepared)}")
            self._prepared[key] = model, context
        return self._prepared[key]

    def build(self, recipe: Recipe, prepared: tuple[Step, ...] = ()) -> Built:
        """Applies a recipe; ``prepared`` is the prefix of its steps that is shared.

        Recipes of the same steps and format share one file, whatever they are called.

        Raises:
            EdgeSdkError: The recipe is wrong, or a pass could not do its work.
            UnsupportedOperatorError: The recipe's engine cannot compute a node.
        """
        written = format_of(recipe.engine) or "onnx"
        key = written, _key(recipe.steps)
        if key not in self._built:
            self._built[key] = self._build(recipe, prepared, written)
        return replace(self._built[key], recipe=recipe)

    def agreement(self, built: Built, samples: int | None = None) -> Agreement:
        """Compares a candidate with the source on the first ``samples`` of the evaluation data."""
        count = min(samples or len(self.evaluation), len(self.evaluation))
        key = built.path, count
        if key not in self._agreement:
            self._agreement[key] = self._compare(self.open(built), count)
        return self._agreement[key]

    def _build(self, recipe: Recipe, prepared: tuple[Step, ...], written: Format) -> Built:
        steps = recipe.steps[len(prepared) :]
        shared = 1 if steps and steps[0].op == "smooth-quant" else 0
        model, context, effective = self._start(prepared, steps[:shared], recipe.name)
        rest = steps[shared:]
        passes = build(msgspec.structs.replace(recipe, steps=rest), context)
        if not shared and any(graph_pass.needs_statistics for graph_pass in passes):
            context.statistics = Statistics(self.statistics(prepared).tensors)
        for step, graph_pass in zip(rest, passes, strict=True):
            result = _applied(graph_pass, model)
            model = result.model
            if result.modified:
                effective.append(step)
        _strip_annotations(model)
        names = {(node.name, node.op_type) for graph in each_graph(model.graph) for node in graph}
        path = save(model, self.folder, f"candidate-{len(self._built)}")
        problem = complaint(path)
        if problem:
            raise ConversionError(f"the ONNX checker refuses it: {problem}", where=recipe.name)
        if any(step.op == "float16" for step in effective):
            self._survives(path, recipe)
        built = Built(
            recipe,
            path,
            shipped_bytes(model, path),
            effective=tuple(effective),
            # A later pass may have quantized what an earlier one left alone.
            unquantized=tuple(u for u in context.unquantized if (u.node, u.op) in names),
            notes=tuple(dict.fromkeys(context.notes)),
            statistics=context.statistics.used_only(),
        )
        return built if written == "onnx" else _lowered(built)

    def _survives(self, path: Path, recipe: Recipe) -> None:
        """Runs a graph in a process of its own first: float16 is what ONNX Runtime dies of.

        On the CPU it widens such graphs as it opens them, and with some ends by a signal.
        """
        first, *_ = self.evaluation.samples[0]
        try:
            footprint(path, {**self._initial, **first})
        except EngineError as error:
            raise ConversionError(
                f"does not run in a process of its own: {error.message}",
                where=recipe.name,
                remedy="use another recipe, or another version of ONNX Runtime",
            ) from error

    def _start(
        self, prepared: tuple[Step, ...], smoothing: tuple[Step, ...], name: str
    ) -> tuple[ir.Model, Context, list[Step]]:
        """A copy of the prepared graph, smoothed if asked for, to apply further passes to.

        Smoothing rewrites every weight, and dozens of candidates start from it: it is
        done and written once.
        """
        model, found = self.prepared(prepared)
        if not smoothing:
            return model.clone(), Context(notes=list(found.notes)), []
        key = _key((*prepared, *smoothing))
        if key not in self._smoothed:
            context = Context(Statistics(self.statistics(prepared).tensors), [], list(found.notes))
            (graph_pass,) = build(Recipe(name=name, steps=smoothing), context)
            result = _applied(graph_pass, model.clone())
            save(result.model, self.folder, f"smoothed-{len(self._smoothed)}")
            self._smoothed[key] = result.model, context, result.modified
        model, found, modified = self._smoothed[key]
        statistics = Statistics(found.statistics.tensors, set(found.statistics.used))
        context = Context(statistics, list(found.unquantized), list(found.notes))
        return model.clone(), context, list(smoothing) if modified else []

    def statistics(self, prepared: tuple[Step, ...]) -> Statistics:
        """Activation statistics of the prepared graph over the calibration data."""
        key = _key(prepared)
        if key not in self._statistics:
            model, _ = self.prepared(prepared)
            self._statistics[key] = collect(model, self.calibration, self.source.states)
        return self._statistics[key]

    def _attempt(self, model: ir.Model, steps: Sequence[Step], context: Context) -> ir.Model:
        for graph_pass in build(Recipe(name="prepare", steps=tuple(steps)), context):
            model = _guarded(graph_pass, model, context)
        return model

    def _one_by_one(self, steps: Sequence[Step], context: Context) -> ir.Model:
        model = self.source.model.clone()
        for number, step in enumerate(steps):
            attempt = self._attempt(model.clone(), [step], context)
            if self._is_faithful(attempt, f"attempt-{number}"):
                model = attempt
            else:
                context.notes.append(f"{step.op} left out: outputs would differ")
        return model

    def _is_faithful(self, model: ir.Model, stem: str) -> bool:
        # By the outputs alone: a task metric says too little about four samples, if anything.
        few = self.evaluation.take(range(min(FAITHFUL_SAMPLES, len(self.evaluation))))
        try:
            session = open_path(save(model, self.folder, stem), self.options)
            outputs, reference = self._run(session, few), self.reference[: len(few)]
        except (EdgeSdkError, ValueError):
            return False
        return compare.agreement(reference, outputs, task=self.source.task).drop <= REWRITE_DROP

    def _check_repeatable(self, session: Session) -> None:
        """Runs a sample again: what draws numbers has no outputs to compare with.

        Raises:
            SourceError: The outputs differ.
        """
        [again] = self._run(session, self.evaluation.take(range(1)))
        if compare.same(self.reference[0], again):
            return
        raise SourceError(
            "it gives other outputs for the same inputs, so that no candidate could be compared "
            f"with it, and nothing could verify a device{_drawing(self.source.model)}",
            where=str(self.source.path),
            remedy="export it for inference, with what it draws as an input, or seen to have no "
            "effect by the values that --data gives",
        )

    def _run(self, session: Session, dataset: Dataset) -> list[compare.SampleOutputs]:
        return compare.run(session, dataset, self.source.states)

    def _compare(self, session: Session, count: int) -> Agreement:
        evaluation = self.evaluation.take(range(count))
        return compare.agreement(
            self.reference[:count],
            self._run(session, evaluation),
            labels=evaluation.labels,
            metric=self.metric,
            task=self.source.task,
        )


def _drawing(model: ir.Model) -> str:
    """The nodes that draw numbers, for a message."""
    names = [
        f"{node.name!r} ({node.op_type})"
        for graph in each_graph(model.graph)
        for node in graph
        if node.op_type in (*DRAWING, "Dropout")
    ]
    return f": {', '.join(names[:3])}" if names else ""


def _has_int8_activations(built: Built) -> bool:
    static = (step.options for step in built.effective if step.op == "static-qdq")
    return any(options.get("activation") == "int8" for options in static)


def _lowered(built: Built) -> Built:
    """A candidate's graph as a file for LiteRT."""
    from converters import litert

    halves = any(step.options.get("storage") == "float16" for step in built.effective)
    weights: litert.Weights = "float16" if halves else "float32"
    content = litert.lower(ir.load(built.path), weights=weights)
    path = built.path.with_suffix(".tflite")
    path.write_bytes(content)
    return replace(
        built, path=path, size_bytes=len(content), format="tflite", lowered_from=built.path
    )


def _strip_annotations(model: ir.Model) -> None:
    """Drops inferred types and shapes: engines infer them again, and they cost bytes."""
    for graph in each_graph(model.graph):
        for node in graph:
            for value in node.outputs:
                if not value.is_graph_output():
                    value.type, value.shape = None, None


def _key(steps: Sequence[Step]) -> bytes:
    return msgspec.json.encode(steps, order="deterministic")


def _applied(graph_pass: GraphPass, model: ir.Model) -> ir.passes.PassResult:
    try:
        return graph_pass(model)
    except (EdgeSdkError, OSError):
        raise
    except Exception as error:  # edge: third-party passes raise anything
        raise ConversionError(
            f"{type(error).__name__}: {error}", where=f"pass {graph_pass.name!r}"
        ) from error


def _guarded(graph_pass: GraphPass, model: ir.Model, context: Context) -> ir.Model:
    """Runs a rewrite; one that cannot cope with this model is left out, with a note."""
    before = model.clone()
    try:
        return graph_pass(model).model
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - edge: third-party passes raise anything
        reason = str(error.__cause__ or error).splitlines()[:1]
        context.notes.append(f"{graph_pass.name} left out: {' '.join(reason)}")
        return before


def shipped_bytes(model: ir.Model, path: Path) -> int:
    """Bytes of the graph file and of the external tensors it refers to, each once."""
    places: dict[tuple[str, int | None], int] = {}
    for graph in each_graph(model.graph):
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor) and is_external(tensor):
                places[str(tensor.path), tensor.offset] = tensor.nbytes
    return path.stat().st_size + sum(places.values())
