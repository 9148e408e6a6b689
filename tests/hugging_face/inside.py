"""Runs inside the toolchain ``hugging-face``: tiny models, and what transformers makes of them.

Weights are random and of a seed, but larger than transformers draws them, so that answers
differ from one input to the next.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}

import numpy as np
import safetensors.torch
import sentencepiece
import torch
import transformers
from PIL import Image
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

TEXTS = (
    "the red fox jumps over the old stone wall",
    "rain falls on the quiet harbour",
    "who opened the window of the old house ?",
    "a small boat crosses the bay at night",
    "Anna Berg lives in Port Lund and works for North Line",
    "stop",
)
LABELS = {"id2label": {0: "oak", 1: "ash", 2: "elm"}, "label2id": {"oak": 0, "ash": 1, "elm": 2}}
NEW_TOKENS = 12
CLASSES = "-classification"
LONG = " . ".join(TEXTS * 8)
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
SMALL = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
}  # fmt: skip
PICTURE = {"image_size": 32, "num_channels": 3}


def prepare(request: dict[str, Any], progress: Callable[[str], None]) -> dict[str, Any]:
    """Writes models into ``out``, and gives the answers of transformers to some inputs.

    All in one process: importing the libraries takes longer than everything else.
    """
    out = Path(request["out"])
    pictures, sounds = _pictures(out), _sounds(out)
    cases = {}
    for name in request["models"]:
        progress(name)
        torch.manual_seed(0)
        BUILDERS[name](out / name)
        task = TASKS[name]
        given: list[Any] = [*TEXTS]
        if task.startswith("image"):
            given = pictures
        elif task.startswith(("audio", "automatic")):
            given = sounds
        elif task == "question-answering":
            given = [{"question": TEXTS[2], "context": text} for text in (LONG, TEXTS[0])]
        elif task == "fill-mask":
            given = [f"{text} [MASK] ." for text in TEXTS]
        cases[name] = {"task": task, "inputs": given, "answers": _answers(out / name, task, given)}
    return {"cases": json.loads(json.dumps(cases, default=float))}


def programs(request: dict[str, Any], progress: Callable[[str], None]) -> dict[str, Any]:
    """Writes two programs, with inputs and what PyTorch gives for them."""
    out = Path(request["out"])
    torch.manual_seed(0)
    batch, sequence = torch.export.Dim("batch"), torch.export.Dim("sequence")
    image, tokens = torch.randn(2, 3, 8, 8), torch.randint(0, 16, (2, 5))
    program = torch.export.export(
        _Two().eval(),
        (image, tokens),
        dynamic_shapes={"image": {0: batch}, "tokens": {0: batch, 1: sequence}},
    )
    torch.export.save(program, out / "two.pt2")
    image, tokens = torch.randn(3, 3, 8, 8), torch.randint(0, 16, (3, 7))
    found = program.module()(image, tokens)
    arrays = {"image": image, "tokens": tokens, **found}
    np.savez(out / "two.npz", **{name: array.detach().numpy() for name, array in arrays.items()})
    cell = torch.nn.GRU(4, 8, batch_first=True)
    x, h = torch.randn(1, 3, 4), torch.zeros(1, 1, 8)
    torch.export.save(torch.export.export(cell, (x, h)), out / "cell.pt2")
    y, last = cell(x, h)
    arrays = {"x": x, "y": y, "last": last}
    np.savez(out / "cell.npz", **{name: array.detach().numpy() for name, array in arrays.items()})
    return {}


class _Two(torch.nn.Module):
    """A picture and tokens in, a dictionary out."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(8)
        self.table = torch.nn.Embedding(16, 8)
        self.head = torch.nn.Linear(8, 4)

    def forward(self, image: torch.Tensor, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
        pooled = torch.relu(self.norm(self.convolution(image))).mean((2, 3))
        return {"logits": self.head(pooled + self.table(tokens).mean(1)), "pooled": pooled}


def tokens(request: dict[str, Any], progress: Callable[[str], None]) -> dict[str, Any]:
    """How the model's own tokenizer numbers some texts."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(request["model"])
    return {"tokens": [tokenizer(text)["input_ids"] for text in request["texts"]]}


def _answers(folder: Path, task: str, given: list[Any]) -> list[Any]:
    if task == "embedding":
        return [_embedding(folder, text) for text in given]
    if folder.name == "whisper":
        return [_heard(folder, np.load(each)) for each in given]
    if task == "text2text-generation":
        return [_written(folder, text) for text in given]
    options: dict[str, Any] = {"top_k": None} if task.endswith(CLASSES) else {}
    if task == "token-classification":
        options = {"aggregation_strategy": "simple"}
    ask = transformers.pipeline(task, model=str(folder), **options)
    found = []
    for each in given:
        if isinstance(each, str) and each.endswith(".npy"):
            array = np.load(each)
            each = Image.fromarray(array) if task.startswith("image") else array
        found.append(ask(**each) if isinstance(each, dict) else ask(each))
    return found


def _written(folder: Path, text: str) -> str:
    """What it writes greedily."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    options = {"num_beams": 1, "do_sample": False, "max_new_tokens": NEW_TOKENS}
    tokens = model.generate(torch.tensor([tokenizer(text)["input_ids"]]), **options)
    return tokenizer.decode(tokens[0], skip_special_tokens=True)


def _heard(folder: Path, sound: Any) -> dict[str, str]:
    """Whisper's own generate() loops over windows of 30 seconds; this is the one beneath."""
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.WhisperForConditionalGeneration.from_pretrained(folder).eval()
    features = extractor(sound, sampling_rate=16_000, return_tensors="pt").input_features
    tokens = transformers.GenerationMixin.generate(
        model, features, decoder_input_ids=torch.tensor([[4, 5, 6, 7]]), do_sample=False,
        max_length=32,
    )  # fmt: skip
    return {"text": tokenizer.decode(tokens[0], skip_special_tokens=True).strip()}


def _embedding(folder: Path, text: str) -> list[float]:
    """As sentence-transformers computes it."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
    if folder.name == "dense":
        return _behind(folder, states).tolist()
    vector = states.mean(0)
    return (vector / vector.norm()).tolist()


def _behind(folder: Path, states: torch.Tensor) -> torch.Tensor:
    """All ways of pooling, two dense layers, a normalization between them."""
    weights = torch.arange(1, len(states) + 1).unsqueeze(1)
    ways = (
        states[0], states.max(0).values, states.mean(0), states.sum(0) / len(states) ** 0.5,
        (states * weights).sum(0) / weights.sum(), states[-1],
    )  # fmt: skip
    first = torch.load(folder / "2_Dense/pytorch_model.bin")
    second = safetensors.torch.load_file(folder / "4_Dense/model.safetensors")
    vector = torch.tanh(first["linear.weight"] @ torch.cat(ways) + first["linear.bias"])
    vector = second["linear.weight"] @ (vector / vector.norm())
    return torch.nn.functional.gelu(vector)


def _pictures(out: Path) -> list[str]:
    """Smooth pictures of several sizes."""
    random = np.random.default_rng(0)
    files = []
    for height, width in ((48, 64), (64, 48), (32, 32), (100, 90)):
        coarse = Image.fromarray(random.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        files.append(str(out / f"picture-{height}-{width}.npy"))
        np.save(files[-1], np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)))
    return files


def _sounds(out: Path) -> list[str]:
    """Chirps, with some noise."""
    random = np.random.default_rng(0)
    files = []
    for index, seconds in enumerate((0.5, 1.0, 1.5)):
        time = np.arange(int(16_000 * seconds)) / 16_000
        tone = np.sin(2 * np.pi * (200 * (index + 1) + 400 * time) * time)
        sound = 0.5 * tone + 0.05 * random.standard_normal(time.size)
        files.append(str(out / f"sound-{index}.npy"))
        np.save(files[-1], sound.astype(np.float32))
    return files


def _wordpiece(kind: str = "Bert") -> transformers.PreTrainedTokenizerFast:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    made = getattr(transformers, f"{kind}TokenizerFast")
    return made(tokenizer_object=tokenizer, model_max_length=64)


def _bytes() -> transformers.PreTrainedTokenizerFast:
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(
        sep=("</s>", 2), cls=("<s>", 0), add_prefix_space=False
    )
    return transformers.RobertaTokenizerFast(tokenizer_object=tokenizer, model_max_length=64)


def _save(model: Any, out: Path, *others: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                spread = 0.5 if "embed" in name else 1.5 / weight[0].numel() ** 0.5
                if "encoder_attn" in name:
                    spread *= 3  # what is written follows what is read
                weight.copy_(torch.randn(weight.shape, generator=generator) * spread)
    for each in (model.eval(), *others):
        each.save_pretrained(out)


def _bert(head: str, out: Path, **options: Any) -> None:
    tokenizer = _wordpiece()
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), max_position_embeddings=64, **SMALL, **options
    )
    _save(getattr(transformers, f"Bert{head}")(config), out, tokenizer)


def _sentences(out: Path) -> None:
    _bert("Model", out)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling",
         "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize",
         "type": "sentence_transformers.models.Normalize"},
    ]  # fmt: skip
    (out / "modules.json").write_text(json.dumps(modules))
    (out / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    (out / "1_Pooling/config.json").write_text(json.dumps(pooling))
    (out / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 32}))
    (out / "README.md").write_text("---\nlicense: apache-2.0\n---\n")


def _dense(out: Path) -> None:
    """With all ways of pooling, and layers of both forms of weights behind it."""
    _sentences(out)
    kinds = ("Transformer", "Pooling", "Dense", "Normalize", "Dense")
    modules = [
        {"path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    (out / "modules.json").write_text(json.dumps(modules))
    ways = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens",
            "weightedmean_tokens", "lasttoken")  # fmt: skip
    (out / "1_Pooling/config.json").write_text(
        json.dumps({f"pooling_mode_{way}": True for way in ways})
    )
    for place, width, size, activation, has_bias in (
        ("2_Dense", 192, 24, "Tanh", True), ("4_Dense", 24, 16, "GELU", False),
    ):  # fmt: skip
        (out / place).mkdir()
        settings = {"activation_function": f"torch.nn.modules.activation.{activation}"}
        (out / place / "config.json").write_text(json.dumps(settings))
        weights = {"linear.weight": torch.randn(size, width) / width**0.5}
        if has_bias:
            weights["linear.bias"] = torch.randn(size)
            torch.save(weights, out / place / "pytorch_model.bin")
        else:
            safetensors.torch.save_file(weights, out / place / "model.safetensors")
    (out / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": {"query": "who "}, "similarity_fn_name": "dot"})
    )


def _slow(out: Path) -> None:
    """As above, with the tokenizer's old files alone."""
    _sentences(out)
    words = json.loads((out / "tokenizer.json").read_text())["model"]["vocab"]
    (out / "vocab.txt").write_text("".join(f"{w}\n" for w in sorted(words, key=words.get)))
    (out / "tokenizer.json").unlink()


def _distilbert(out: Path) -> None:
    tokenizer = _wordpiece("DistilBert")
    config = transformers.DistilBertConfig(
        vocab_size=len(tokenizer), dim=32, n_layers=2, n_heads=4, hidden_dim=64,
        max_position_embeddings=64, id2label=dict(enumerate(TAGS)),
        label2id={tag: i for i, tag in enumerate(TAGS)},
    )  # fmt: skip
    _save(transformers.DistilBertForTokenClassification(config), out, tokenizer)


def _roberta(out: Path) -> None:
    tokenizer = _bytes()
    config = transformers.RobertaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=66, type_vocab_size=1,
        pad_token_id=1, bos_token_id=0, eos_token_id=2, **SMALL,
    )  # fmt: skip
    _save(transformers.RobertaForQuestionAnswering(config), out, tokenizer)


def _picture(kind: str, out: Path, processor: Any, **options: Any) -> None:
    config = getattr(transformers, f"{kind}Config")(**LABELS, **options)
    _save(getattr(transformers, f"{kind}ForImageClassification")(config), out, processor)


def _vit(out: Path) -> None:
    size = {"height": 32, "width": 32}
    processor = transformers.ViTImageProcessor(size=size)
    _picture("ViT", out, processor, patch_size=8, **PICTURE, **SMALL)


def _resnet(out: Path) -> None:
    size = {"shortest_edge": 32}
    processor = transformers.ConvNextImageProcessor(size=size, crop_pct=0.875)
    _picture(
        "ResNet", out, processor, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1],
        layer_type="basic",
    )  # fmt: skip


def _mobilenet(version: int, out: Path) -> None:
    processor = getattr(transformers, f"MobileNetV{version}ImageProcessor")(
        size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}
    )
    options = {"depth_multiplier": 0.25, "image_size": 32}
    _picture(f"MobileNetV{version}", out, processor, **options)


def _convnext(out: Path) -> None:
    processor = transformers.ConvNextImageProcessor(size={"shortest_edge": 384})
    _picture("ConvNext", out, processor, hidden_sizes=[8, 16], depths=[1, 1], num_stages=2)


def _sound(kind: str, head: str, out: Path, processor: Any, **options: Any) -> None:
    config = getattr(transformers, f"{kind}Config")(
        conv_dim=(16, 16, 16), conv_stride=(10, 8, 4), conv_kernel=(10, 8, 4),
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, **SMALL, **options,
    )  # fmt: skip
    _save(getattr(transformers, f"{kind}{head}")(config), out, processor)


def _extractor(normalize: bool = True, mask: bool = False) -> Any:
    return transformers.Wav2Vec2FeatureExtractor(
        sampling_rate=16000, do_normalize=normalize, return_attention_mask=mask
    )


def _wav2vec2(out: Path) -> None:
    _sound("Wav2Vec2", "ForSequenceClassification", out, _extractor(), **LABELS)


def _ctc(kind: str, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ"]
    vocabulary = out / "vocab.json"
    vocabulary.write_text(json.dumps({letter: i for i, letter in enumerate(letters)}))
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(vocabulary))
    processor = transformers.Wav2Vec2Processor(_extractor(), tokenizer)
    options = {"vocab_size": len(letters), "pad_token_id": 0}
    _sound(kind, "ForCTC", out, processor, **options)


def _spectrogram(out: Path) -> None:
    extractor = transformers.ASTFeatureExtractor(num_mel_bins=32, max_length=64)
    config = transformers.ASTConfig(
        **SMALL, **LABELS, num_mel_bins=32, max_length=64, patch_size=16,
        frequency_stride=16, time_stride=16,
    )  # fmt: skip
    _save(transformers.ASTForAudioClassification(config), out, extractor)


def _ernie(out: Path) -> None:
    """Of a kind that optimum does not know."""
    tokenizer = _wordpiece()
    config = transformers.ErnieConfig(
        vocab_size=len(tokenizer), max_position_embeddings=64, **SMALL, **LABELS
    )
    _save(transformers.ErnieForSequenceClassification(config), out, tokenizer)


def _focalnet(out: Path) -> None:
    """Of a kind that optimum does not know."""
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    options = {"embed_dim": 16, "depths": [1, 1], "focal_levels": [2, 2], "focal_windows": [3, 3]}
    _picture("FocalNet", out, processor, hidden_sizes=[16, 32], image_size=32, **options)


def _words() -> transformers.PreTrainedTokenizerFast:
    """Whole words, as SentencePiece writes them."""
    special = ["<pad>", "</s>", "<unk>", "<s>", *(f"<|{name}|>" for name in "abcde")]
    words = sorted({f"▁{word}" for text in TEXTS for word in text.split()})
    table = {word: index for index, word in enumerate([*special, *words])}
    made = Tokenizer(models.WordLevel(table, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    made.add_special_tokens(special)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )


COMMON = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
TWO_SIDES = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
}  # fmt: skip


def _t5(out: Path) -> None:
    tokenizer = _words()
    config = transformers.T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, **COMMON
    )
    _save(transformers.T5ForConditionalGeneration(config), out, tokenizer)


def _bart(out: Path) -> None:
    tokenizer = _words()
    config = transformers.BartConfig(
        vocab_size=len(tokenizer), max_position_embeddings=64, forced_eos_token_id=None,
        **TWO_SIDES, **COMMON,
    )  # fmt: skip
    _save(transformers.BartForConditionalGeneration(config), out, tokenizer)


def _rules(out: Path) -> None:
    """With all that a configuration may say of what is written."""
    _bart(out)
    file = out / "generation_config.json"
    rules = {
        "forced_bos_token_id": 3, "forced_eos_token_id": 1, "no_repeat_ngram_size": 2,
        "encoder_no_repeat_ngram_size": 2, "min_length": 6, "repetition_penalty": 1.3,
        "suppress_tokens": [9], "begin_suppress_tokens": [10, 11, 12], "num_beams": 4,
        "bad_words_ids": [[13], [14, 15], [16, 17, 18]],
    }  # fmt: skip
    file.write_text(json.dumps(json.loads(file.read_text()) | rules))


def _marian(out: Path) -> None:
    """With tokenizer files as they are published: two SentencePiece models and one table."""
    out.mkdir(parents=True)
    pieces = ["</s>", "<unk>"]
    for name, texts in (("source", TEXTS), ("target", [text[::-1] for text in TEXTS])):
        with (out / f"{name}.spm").open("wb") as file:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(texts), model_writer=file, vocab_size=48,
                hard_vocab_limit=False, minloglevel=2,
            )  # fmt: skip
        model = sentencepiece.SentencePieceProcessor(model_file=str(out / f"{name}.spm"))
        pieces += [model.id_to_piece(i) for i in range(3, model.get_piece_size())]
    table = {piece: index for index, piece in enumerate([*dict.fromkeys(pieces), "<pad>"])}
    (out / "vocab.json").write_text(json.dumps(table))
    files = [str(out / name) for name in ("source.spm", "target.spm", "vocab.json")]
    tokenizer = transformers.MarianTokenizer(*files)
    last = len(table) - 1
    config = transformers.MarianConfig(
        vocab_size=len(table), max_position_embeddings=64, forced_eos_token_id=None,
        pad_token_id=last, decoder_start_token_id=last, eos_token_id=0, **TWO_SIDES,
    )  # fmt: skip
    _save(transformers.MarianMTModel(config), out, tokenizer)


def _whisper(out: Path) -> None:
    """Hears two seconds."""
    tokenizer = _words()
    extractor = transformers.WhisperFeatureExtractor(feature_size=16, chunk_length=2)
    config = transformers.WhisperConfig(
        vocab_size=len(tokenizer), num_mel_bins=16, max_source_positions=100,
        max_target_positions=32, bos_token_id=1, suppress_tokens=[], begin_suppress_tokens=[],
        **TWO_SIDES, **(COMMON | {"decoder_start_token_id": 4}),
    )  # fmt: skip
    model = transformers.WhisperForConditionalGeneration(config)
    settings = model.generation_config
    settings.lang_to_id, settings.task_to_id = {"<|b|>": 5}, {"transcribe": 6}
    settings.no_timestamps_token_id, settings.is_multilingual = 7, True
    _save(model, out, tokenizer, extractor)


BUILDERS: dict[str, Callable[[Path], None]] = {
    "sentences": _sentences,
    "dense": _dense,
    "slow-tokenizer": _slow,
    "bert-classes": lambda out: _bert("ForSequenceClassification", out, **LABELS),
    "bert-labels": lambda out: _bert(
        "ForSequenceClassification", out, problem_type="multi_label_classification", **LABELS
    ),
    "bert-regression": lambda out: _bert(
        "ForSequenceClassification", out, num_labels=1, problem_type="regression"
    ),
    "bert-fill": lambda out: _bert("ForMaskedLM", out),
    "distilbert-tags": _distilbert,
    "roberta-answers": _roberta,
    "vit": _vit,
    "resnet": _resnet,
    "mobilenet-v1": lambda out: _mobilenet(1, out),
    "mobilenet-v2": lambda out: _mobilenet(2, out),
    "convnext": _convnext,
    "wav2vec2-classes": _wav2vec2,
    "wav2vec2-ctc": lambda out: _ctc("Wav2Vec2", out),
    "hubert-ctc": lambda out: _ctc("Hubert", out),
    "ast": _spectrogram,
    "ernie": _ernie,
    "focalnet": _focalnet,
    "t5": _t5,
    "bart": _bart,
    "bart-rules": _rules,
    "marian": _marian,
    "whisper": _whisper,
}

TASKS = {
    "sentences": "embedding",
    "dense": "embedding",
    "slow-tokenizer": "embedding",
    "bert-classes": "text-classification",
    "bert-labels": "text-classification",
    "bert-regression": "text-classification",
    "bert-fill": "fill-mask",
    "distilbert-tags": "token-classification",
    "roberta-answers": "question-answering",
    "vit": "image-classification",
    "resnet": "image-classification",
    "mobilenet-v1": "image-classification",
    "mobilenet-v2": "image-classification",
    "convnext": "image-classification",
    "wav2vec2-classes": "audio-classification",
    "ast": "audio-classification",
    "wav2vec2-ctc": "automatic-speech-recognition",
    "hubert-ctc": "automatic-speech-recognition",
    "ernie": "text-classification",
    "focalnet": "image-classification",
    "t5": "text2text-generation",
    "bart": "text2text-generation",
    "bart-rules": "text2text-generation",
    "marian": "text2text-generation",
    "whisper": "automatic-speech-recognition",
}
