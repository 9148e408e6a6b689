"""What a model does, by the last part of its architecture's name, under optimum's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_sdk.errors import SourceError

FEATURES, SPEECH, SEQ2SEQ = (
    "feature-extraction", "automatic-speech-recognition", "text2text-generation",
)  # fmt: skip
CLASSIFICATIONS = ("text-classification", "image-classification", "audio-classification")
TAGS, ANSWERS, FILL = "token-classification", "question-answering", "fill-mask"
TASKS = (*CLASSIFICATIONS, TAGS, ANSWERS, FILL, FEATURES, SPEECH, SEQ2SEQ)
PAST = "-with-past"

# The last part of an architecture's name -> task; the longer before what it ends in.
_HEADS: Mapping[str, str | None] = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": TAGS,
    "ForQuestionAnswering": ANSWERS,
    "ForMaskedLM": FILL,
    "ForImageClassification": "image-classification",
    "ForImageClassificationWithTeacher": "image-classification",
    "ForAudioClassification": "audio-classification",
    "ForCTC": SPEECH,
    "ForSpeechSeq2Seq": SPEECH + PAST,
    "ForConditionalGeneration": SEQ2SEQ + PAST,
    "MTModel": SEQ2SEQ + PAST,
    "LMHeadModel": None,
    "Model": FEATURES,
}
# Models of sound whose heads are named like those for text.
_SOUND = {
    "data2vec-audio", "hubert", "mctct", "moonshine", "sew", "sew-d", "speech_to_text",
    "unispeech", "unispeech-sat", "wav2vec2", "wav2vec2-bert", "wav2vec2-conformer", "wavlm",
    "whisper",
}  # fmt: skip
_OF_SOUND = {"text-classification": "audio-classification", SEQ2SEQ + PAST: SPEECH + PAST}


def export_task(config: Mapping[str, Any], named: str | None, where: str) -> str | None:
    """The task to export a model for; ``None`` for dialogue models, which are not exported.

    Args:
        config: Content of ``config.json``.
        named: The task that the user named.
        where: The file, for messages.

    Raises:
        SourceError: The architecture does not do what the user named, or nothing that is known.
    """
    architecture = str(next(iter(config.get("architectures") or ()), ""))
    found = next((task for end, task in _HEADS.items() if architecture.endswith(end)), None)
    if found is None and "For" in architecture and not architecture.endswith("ForCausalLM"):
        raise SourceError(
            f"{architecture} is for nothing that is supported",
            where=f"{where}: architectures",
            remedy=f"supported: {', '.join(TASKS)} and dialogue models; export any other model to "
            "ONNX and convert the .onnx file",
        )
    if config.get("model_type") in _SOUND and found:
        found = _OF_SOUND.get(found, found)
    if named in (None, "generic"):
        return found
    if named == FEATURES:
        return FEATURES  # of any model, without its head
    if found is not None and (found.removesuffix(PAST) == named or _classifies(found, named)):
        return found
    if not architecture and named in TASKS:
        return SEQ2SEQ + PAST if named == SEQ2SEQ else named
    does = found.removesuffix(PAST) if found else "text-generation"
    raise SourceError(
        f"{architecture or 'a model without an architecture'} does not do {named}",
        where=f"{where}: architectures",
        remedy=f"leave --task out: it does {does}" if architecture else None,
    )


def _classifies(found: str, named: str | None) -> bool:
    return named == "classification" and found in CLASSIFICATIONS
