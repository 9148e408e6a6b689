"""Pre- and post-processing steps of a variant: what the record says, as typed options.

The registry: an ``op`` in the record names one class here, and the step's
options are that class's fields. Converters write steps with :func:`to_step`,
the runtime reads them with :func:`parse_steps`; :mod:`edge_sdk.runtime.tasks`
carries them out. One step of preprocessing says what the model is given: text
(:class:`Tokenize`), a picture (:class:`Image`) or sound (:class:`Waveform`,
:class:`Spectrogram`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from edge_sdk.bundle.record import Step
from edge_sdk.errors import BundleError

Encoding = Literal["ids", "mask", "types"]
Layout = Literal["NCHW", "NHWC"]
Channels = Literal["RGB", "BGR", "L"]
Filter = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
Aggregation = Literal["none", "simple", "first", "average", "max"]
MelScale = Literal["slaney", "htk", "kaldi"]
Pooling = Literal["mean", "cls", "none"]
Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]

Positive = Annotated[int, Meta(gt=0)]
Count = Annotated[int, Meta(ge=0)]
Scale = Annotated[float, Meta(gt=0)]
Size = tuple[Positive, Positive]


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of one step.

    Fields named ``input``, ``inputs`` and ``mask`` name inputs of the model; ``output``,
    ``start`` and ``end`` name outputs.
    """


class Tokenize(Options, frozen=True, kw_only=True):
    """Text, or a pair of texts, to token arrays.

    Attributes:
        inputs: Model input -> which array of the encoding it takes.
        max_length: Tokens kept of each text, special tokens included.
        file: The tokenizer among the variant's files.
        stride: Tokens that neighbouring windows share where a text longer than
            ``max_length`` is read window by window: the context of a question,
            and a text to tag. 0 reads a tagged text's first window only.
    """

    inputs: Annotated[dict[str, Encoding], Meta(min_length=1)]
    max_length: Positive
    file: str = "tokenizer.json"
    stride: Count = 0


class Image(Options, frozen=True, kw_only=True):
    """A picture to one array: resize, crop, scale, normalize, pad, in this order.

    Values are those of Pillow and of transformers' image processors.

    Attributes:
        input: Model input, of rank 4. An integer one takes rounded values.
        layout: Order of its axes.
        channels: What it takes: ``L`` is one grey channel (ITU-R 601).
        size: (height, width) that the picture is resized to.
        shorter: Pixels of the shorter side instead; the other keeps its proportion.
        resample: The filter; widened when shrinking, so that nothing aliases.
        crop: (height, width) cut from the middle; a smaller picture gets black around it.
        scale: Factor of the bytes 0-255.
        offset: Added after scaling.
        mean: Subtracted per channel, in the order of ``channels`` after scaling; none if empty.
        std: Divides per channel; none if empty.
        pad: (height, width) filled up with zeros to the right and below.
    """

    input: str
    layout: Layout = "NCHW"
    channels: Channels = "RGB"
    size: Size | None = None
    shorter: Positive | None = None
    resample: Filter = "bilinear"
    crop: Size | None = None
    scale: float = 1 / 255
    offset: float = 0.0
    mean: tuple[float, ...] = ()
    std: tuple[Scale, ...] = ()
    pad: Size | None = None

    def __post_init__(self) -> None:
        channels = 1 if self.channels == "L" else 3
        if {len(self.mean), len(self.std)} - {0, channels}:
            raise ValueError(f"mean and std need {channels} values, one per channel")


class Waveform(Options, frozen=True, kw_only=True):
    """Sound as samples, ``[batch, samples]``.

    Attributes:
        input: Model input.
        rate: Samples per second that it takes; sound of another rate is resampled.
        normalize: Whether each clip gets zero mean and unit variance.
        mask: Model input that is 1 for samples and 0 for padding.
        samples: Each clip is cut, or filled up with zeros, to this many.
    """

    input: str
    rate: Positive = 16_000
    normalize: bool = False
    mask: str | None = None
    samples: Positive | None = None


class Spectrogram(Options, frozen=True, kw_only=True):
    """Sound as log-mel energies, or their cepstrum (MFCC).

    Framed, weighted, Fourier-transformed, squared, gathered in mel bands, logarithm.
    The defaults are Whisper's.

    Attributes:
        input: Model input, ``[batch, bands, frames]``, or ``[batch, frames, bands]``
            where ``frames_first``.
        rate: Samples per second that it takes; sound of another rate is resampled.
        samples: Each clip is cut, or filled up with zeros, to this many.
        fft: Points of the transform.
        window: Samples of a frame; ``fft`` by default.
        hop: Samples from one frame to the next.
        taper: Shape of the window: ``povey`` is Hann to the power 0.85.
        periodic: Whether the window is periodic (one sample longer, and cut).
        centered: Whether frames are centered on their sample, the clip reflected at its ends.
        drop_last: Whether the last frame is left out.
        amplitude: Factor of the samples; Kaldi's reckons with 16-bit numbers.
        remove_mean: Whether each frame loses its mean.
        preemphasis: Share of the sample before that is subtracted within each frame.
        bands: Number of mel bands.
        low: Lowest frequency in Hz.
        high: Highest frequency in Hz; half the rate by default.
        scale: Which mel scale; Kaldi's bands are triangles in mel.
        equal_area: Whether bands are scaled to equal area (Slaney's norm).
        log: ``log10``, the natural ``log``, or ``db`` (10 log10).
        floor: Smallest energy whose logarithm is taken.
        dynamic_range: What lies further below the clip's maximum is raised to that.
        coefficients: The cepstrum's length (orthonormal DCT-II), in place of bands.
        frames: Frames are cut, or filled up with zeros, to this many.
        mean: Subtracted at last, from padding too.
        std: Divides at last.
        frames_first: Order of the last two axes.
        mask: Model input that is 1 for frames and 0 for padding, ``[batch, frames]``.
    """

    input: str
    rate: Positive = 16_000
    samples: Positive | None = None
    fft: Positive = 400
    window: Positive | None = None
    hop: Positive = 160
    taper: Literal["hann", "hamming", "povey"] = "hann"
    periodic: bool = True
    centered: bool = True
    drop_last: bool = True
    amplitude: float = 1.0
    remove_mean: bool = False
    preemphasis: float = 0.0
    bands: Positive = 80
    low: float = 0.0
    high: float | None = None
    scale: MelScale = "slaney"
    equal_area: bool = True
    log: Literal["log10", "log", "db"] = "log10"
    floor: Scale = 1e-10
    dynamic_range: Scale | None = 8.0
    coefficients: Positive | None = None
    frames: Positive | None = None
    mean: float = -4.0
    std: Scale = 4.0
    frames_first: bool = False
    mask: str | None = None


class Pool(Options, frozen=True, kw_only=True):
    """Token vectors to one vector per text.

    Attributes:
        output: Model output, ``[batch, sequence, size]``, or ``[batch, size]`` for ``none``.
        mode: ``mean`` over the tokens of the text, the first token (``cls``), or ``none``.
        normalize: Whether vectors are scaled to unit length.
        similarity: What the model was trained to compare vectors by.
        prompts: Name -> text that goes before every text.
        prompt: The one that goes there where the caller names none.
    """

    output: str
    mode: Pooling = "mean"
    normalize: bool = True
    similarity: Similarity = "cosine"
    prompts: dict[str, str] = {}
    prompt: str | None = None


class Softmax(Options, frozen=True, kw_only=True):
    """Logits to probabilities over the last axis: one class is right.

    Attributes:
        output: Model output, ``[batch, classes]``.
    """

    output: str


class Sigmoid(Options, frozen=True, kw_only=True):
    """Logits to one probability each: any number of classes is right.

    Attributes:
        output: Model output, ``[batch, classes]``.
    """

    output: str


class Labels(Options, frozen=True, kw_only=True):
    """Names of the classes; of a regression, of its numbers.

    Attributes:
        output: Model output with one score per class, ``[batch, classes]``.
        names: The names in order of the classes, or
        file: a text file among the variant's files with one name per line.
    """

    output: str
    names: tuple[str, ...] = ()
    file: str | None = None


class Entities(Options, frozen=True, kw_only=True):
    """Logits per token to stretches of the text with a label.

    Attributes:
        output: Model output, ``[batch, sequence, labels]``.
        names: The labels in order.
        aggregation: How tokens become entities: not at all (``none``); neighbours of
            one label together (``simple``), where ``B-`` begins another; or so by
            words, which have the label of their ``first`` token, of their tokens'
            ``average`` scores, or of their surest token (``max``).
        ignore: Labels of what is no entity.
    """

    output: str
    names: tuple[str, ...]
    aggregation: Aggregation = "simple"
    ignore: tuple[str, ...] = ("O",)


class Span(Options, frozen=True, kw_only=True):
    """Logits of where an answer starts and ends to stretches of the context.

    Attributes:
        start: Model output, ``[batch, sequence]``.
        end: Model output, ``[batch, sequence]``.
        max_tokens: Longest answer.
        may_lack: Whether "there is no answer" is one; an empty text then.
    """

    start: str
    end: str
    max_tokens: Positive = 15
    may_lack: bool = False


class Fill(Options, frozen=True, kw_only=True):
    """Logits per token to what may stand in a gap.

    Attributes:
        output: Model output, ``[batch, sequence, vocabulary]``.
        gap: The token that stands for what is missing.
    """

    output: str
    gap: str = "[MASK]"


class Ctc(Options, frozen=True, kw_only=True):
    """Logits per frame to text: the likeliest token of each frame, repeats and blanks left out.

    Attributes:
        output: Model output, ``[batch, frames, tokens]``.
        seconds: Of sound per frame.
        window: Most seconds of sound read at a time; a longer clip is read in windows
            of which neighbours share a third.
        file: Tokens and their ids, ``{"token": id}``, among the variant's files.
        blank: The token that says "none".
        delimiter: The token between words.
        repeats: Whether repeated tokens are one.
    """

    output: str
    seconds: Scale = 0.02
    window: Scale = 30.0
    file: str = "vocab.json"
    blank: str = "<pad>"
    delimiter: str = "|"
    repeats: bool = True


STEPS: dict[str, type[msgspec.Struct]] = {
    "tokenize": Tokenize,
    "image": Image,
    "waveform": Waveform,
    "spectrogram": Spectrogram,
    "pool": Pool,
    "softmax": Softmax,
    "sigmoid": Sigmoid,
    "labels": Labels,
    "entities": Entities,
    "span": Span,
    "fill": Fill,
    "ctc": Ctc,
}
Parsed = TypeVar("Parsed", bound=msgspec.Struct)


def to_step(options: msgspec.Struct) -> Step:
    """The record's form of typed step options.

    Defaults stay unsaid, so that a version without a new option runs what does not use it.
    """
    op = next(op for op, kind in STEPS.items() if isinstance(options, kind))
    defaults = {field.name: field.default for field in msgspec.structs.fields(options)}
    said = {name for name, default in defaults.items() if getattr(options, name) != default}
    values = msgspec.to_builtins(options)
    return Step(op=op, options={name: value for name, value in values.items() if name in said})


def parse_steps(steps: Sequence[Step]) -> tuple[Any, ...]:
    """Typed options of each step, in order.

    Raises:
        BundleError: An unknown step, or options that do not fit it.
    """
    return tuple(_parse(step) for step in steps)


def find_step(steps: Sequence[Any], kind: type[Parsed]) -> Parsed | None:
    """The first parsed step of that kind."""
    return next((step for step in steps if isinstance(step, kind)), None)


def _parse(step: Step) -> msgspec.Struct:
    if step.op not in STEPS:
        raise BundleError(
            f"unknown step; this version knows {', '.join(STEPS)}",
            where=f"step {step.op!r}",
            remedy="run the bundle with the edge-sdk version that made it, or a newer one",
        )
    try:
        return msgspec.convert(step.options, STEPS[step.op])
    except msgspec.ValidationError as error:
        raise BundleError(str(error), where=f"step {step.op!r}") from error
