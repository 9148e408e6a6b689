"""The same encoder and CNN through other quantizers, by a newcomer's shortest command each.

Every tool has an environment of its own under ``build/benchmarks``. What comes out is compared
with the fp32 source by ``edge-sdk compare``'s protocol: the same data, turns in time.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
import venv
from dataclasses import dataclass
from pathlib import Path

from benchmarks.digits import DIGITS
from benchmarks.encoder import CACHE, exported
from benchmarks.result import Outcome, Row
from converters.comparison import Request, compare
from converters.comparison import Row as Compared

HOME = CACHE / "peers"
# A quantizer asks its telemetry and the model hub nothing here.
QUIET = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


@dataclass(frozen=True)
class Peer:
    """A quantizer.

    Attributes:
        name: What it is called, with its version.
        requirements: What pip installs, in this order.
        command: What a newcomer types; ``model`` is the source's folder, ``out`` a new one.
        output: What comes out, below ``out``.
    """

    name: str
    requirements: tuple[tuple[str, ...], ...]
    command: str
    output: str

    @property
    def programs(self) -> Path:
        """Where its programs are; installed on first use."""
        environment = HOME / self.name.split()[0].lower()
        if not (environment / ".complete").is_file():
            venv.create(environment, with_pip=True, clear=True)
            for requirements in self.requirements:
                pip = [environment / "bin" / "python", "-m", "pip", "install", "-q"]
                subprocess.run([*pip, *requirements], check=True, stdout=sys.stderr)
            (environment / ".complete").touch()
        return environment / "bin"


TORCH = ("torch==2.13.0",)
PEERS = (
    # olive-ai 0.13.0 does not name `requests`, which it imports.
    Peer(
        "Olive 0.13.0",
        (TORCH, ("olive-ai==0.13.0", "onnxruntime==1.31.1", "requests")),
        "olive quantize -m model/model.onnx --implementation ort --precision int8 -o out",
        "model.onnx",
    ),
    Peer(
        "optimum-onnx 0.1.0",
        (TORCH, ("optimum==2.1.0", "optimum-onnx[onnxruntime]==0.1.0", "transformers==4.57.6")),
        "optimum-cli onnxruntime quantize --onnx_model model --avx512_vnni -o out",
        "model_quantized.onnx",
    ),
)
OURS = "edge-sdk convert model/model.onnx -p x86-64 --data model/{data} -o out"


@dataclass(frozen=True)
class Subject:
    """A model that all quantize.

    Attributes:
        name: For people.
        files: Name in the folder -> file; ``model.onnx`` is the source.
        data: Which of them others may calibrate on.
        heldout: What the results are compared on.
    """

    name: str
    files: dict[str, Path]
    data: str
    heldout: Path


def subjects() -> tuple[Subject, ...]:
    """The encoder and the CNN."""
    minilm = exported()
    return (
        Subject(
            "MiniLM-L6 encoder",
            {
                "model.onnx": minilm / "model.onnx",
                "tokenizer.json": minilm / "tokenizer.json",
                "calibration.jsonl": minilm / "calibration.jsonl",
            },
            "calibration.jsonl",
            minilm / "heldout.jsonl",
        ),
        Subject(
            "digits CNN",
            {
                "model.onnx": DIGITS / "digits.onnx",
                "calibration.npz": DIGITS / "calibration.npz",
            },
            "calibration.npz",
            DIGITS / "heldout.npz",
        ),
    )


def run(quick: bool) -> Outcome:
    """Quantizes with every tool and compares what came out."""
    rows: list[Row] = []
    figures: dict[str, float] = {}
    for subject in subjects():
        made, seconds = _made(subject)
        found = compare(
            Request(
                tuple(map(str, made.values())),
                data=subject.heldout,
                threads=(1,),
                seconds=0.5 if quick else 4.0,
            )
        )
        for name, row in list(zip(made, found.rows, strict=True))[1:]:
            command = OURS.format(data=subject.data) if name == "edge-sdk" else _command(name)
            rows.append(
                Row(
                    f"{subject.name} by {name}: `{command}`",
                    _measured(row, found.rows[0], seconds[name]),
                )
            )
            key = f"{subject.name} {name}".replace(" ", "_").lower()
            figures |= {
                f"{key}_seconds": round(seconds[name], 1),
                f"{key}_bytes": row.size_bytes,
                f"{key}_speedup": row.speedup,
                f"{key}_cosine": row.agreement.cosine if row.agreement else 0.0,
            }
    return Outcome(rows=tuple(rows), figures=figures)


def _made(subject: Subject) -> tuple[dict[str, Path], dict[str, float]]:
    """What each tool made of a model, the source first, and how long its command took."""
    folder = HOME / "work" / subject.name.split()[0].lower()
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "model").mkdir(parents=True)
    for name, file in subject.files.items():
        shutil.copyfile(file, folder / "model" / name)
    made, seconds = {"source": folder / "model" / "model.onnx"}, {"source": 0.0}
    here = Path(sys.executable).parent
    tools = [(peer.name, peer.programs, peer.command, peer.output) for peer in PEERS]
    for name, programs, command, output in [
        *tools,
        ("edge-sdk", here, OURS.format(data=subject.data), ""),
    ]:
        out = folder / name.split()[0].lower()
        words = shlex.split(command)
        words = [str(out) if word == "out" else word for word in words]
        started = time.monotonic()
        subprocess.run(
            [programs / words[0], *words[1:]],
            cwd=folder, check=True, stdout=sys.stderr, env={"PATH": "/usr/bin:/bin", **QUIET},
        )  # fmt: skip
        seconds[name] = time.monotonic() - started
        made[name] = out / output if output else out
        for side in ("tokenizer.json",):
            if output and (folder / "model" / side).is_file():
                shutil.copyfile(folder / "model" / side, made[name].parent / side)
    return made, seconds


def _command(name: str) -> str:
    return next(peer.command for peer in PEERS if peer.name == name)


def _measured(row: Compared, source: Compared, seconds: float) -> str:
    parts = [
        f"{seconds:.0f} s",
        f"{source.size_bytes / row.size_bytes:.1f}× smaller",
        f"{row.speedup:.2f}× the speed",
    ]
    agreement = row.agreement
    if agreement:
        parts.append(f"cosine {agreement.cosine:.4f}")
        if agreement.nearest is not None:
            parts.append(f"same nearest neighbour {agreement.nearest:.1%}")
        if agreement.top1 is not None:
            parts.append(f"same class {agreement.top1:.1%}")
    parts.append(f"{row.start.peak_rss_bytes / 1e6:.0f} MB peak memory")
    return ", ".join(parts)
