"""Train the digits classifier: a small residual CNN on scikit-learn's 8x8 handwritten digits.

The data ships with scikit-learn (1,797 images, 10 classes); nothing is downloaded. From the
repository root, about three minutes on one core:

    pip install torch==2.13.0 scikit-learn onnx onnxscript onnxruntime
    python -m examples.digits.train

The same seed gives the same model on the same machine; another CPU may differ in the last
digits of the weights, and so by an image or two in the accuracy.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional

from examples.exporting import (
    Array,
    Metrics,
    count_parameters,
    export_onnx,
    seed_everything,
    session,
)

SEED = 7
HELDOUT, CALIBRATION = 500, 200
EPOCHS, BATCH, PEAK_RATE = 40, 64, 4e-3
WIDTH = 96


@dataclass(frozen=True)
class Split:
    """Images, float32 [samples, 1, 8, 8] in 0..1, and their classes, int64 [samples]."""

    image: Array
    labels: Array

    def save(self, path: Path) -> None:
        """Write the arrays as ``image`` and ``labels`` of one ``.npz``."""
        np.savez_compressed(path, image=self.image, labels=self.labels)


class ConvNorm(nn.Sequential):
    """3x3 convolution and batch normalization; keeps height and width."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels_out)


class Residual(nn.Module):
    """Two convolutions around an identity shortcut (He et al. 2015, basic block)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels)
        self.second = ConvNorm(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, channels, height, width] to the same shape."""
        return functional.relu(x + self.second(functional.relu(self.first(x))))


class DigitsNet(nn.Module):
    """Stem, two residual stages at 8x8 and 4x4, global average, linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(1, 32)
        self.widen = ConvNorm(32, WIDTH)
        self.stage1 = Residual(WIDTH)
        self.mix = ConvNorm(WIDTH, WIDTH)
        self.stage2 = Residual(WIDTH)
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Map images [batch, 1, 8, 8] in 0..1 to logits [batch, 10]."""
        x = functional.relu(self.widen(functional.relu(self.stem(image))))
        x = functional.relu(self.mix(self.stage1(x)))
        x = self.stage2(functional.max_pool2d(x, 2))
        return self.head(x.mean((2, 3)))


def load_splits() -> tuple[Split, Split, Split]:
    """Cut the digits, stratified by class, into training, calibration and held-out images."""
    digits = load_digits()
    image = (digits.images / 16).astype(np.float32)[:, None]
    labels = digits.target.astype(np.int64)
    rest, heldout, rest_labels, heldout_labels = train_test_split(
        image, labels, test_size=HELDOUT, random_state=SEED, stratify=labels
    )
    train, calibration, train_labels, calibration_labels = train_test_split(
        rest, rest_labels, test_size=CALIBRATION, random_state=SEED, stratify=rest_labels
    )
    return (
        Split(train, train_labels),
        Split(calibration, calibration_labels),
        Split(heldout, heldout_labels),
    )


def augment(image: Tensor) -> Tensor:
    """Rotate, scale, shear and shift each image a little, as another hand would have drawn it."""
    batch = image.shape[0]
    warp = torch.eye(2).repeat(batch, 1, 1) + 0.12 * torch.randn(batch, 2, 2)
    shift = 0.12 * torch.randn(batch, 2, 1)
    grid = functional.affine_grid(
        torch.cat([warp, shift], dim=2), list(image.shape), align_corners=False
    )
    return functional.grid_sample(image, grid, align_corners=False)


def train(model: DigitsNet, split: Split) -> None:
    """Fit `model` to `split` with AdamW, a one-cycle rate and label smoothing."""
    image, labels = torch.from_numpy(split.image), torch.from_numpy(split.labels)
    steps = len(labels) // BATCH
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, EPOCHS * steps)
    model.train()
    for epoch in range(EPOCHS):
        total = 0.0
        for rows in torch.randperm(len(labels)).split(BATCH)[:steps]:
            logits = model(augment(image[rows]))
            loss = functional.cross_entropy(logits, labels[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}/{EPOCHS}: loss {total / steps:.4f}", flush=True)


def accuracy(path: Path, split: Split) -> float:
    """Top-1 accuracy of the ONNX file on `split`."""
    (logits,) = session(path).run(None, {"image": split.image})
    return float((logits.argmax(axis=1) == split.labels).mean())


def main() -> None:
    """Train, export, measure, and write everything this folder holds."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    seed_everything(SEED)
    training, calibration, heldout = load_splits()
    model = DigitsNet()
    train(model, training)
    path = out / "digits.onnx"
    example = {"image": torch.from_numpy(calibration.image[:8])}
    difference = export_onnx(model, example, ["logits"], path, {"image": {0: "batch"}})
    calibration.save(out / "calibration.npz")
    heldout.save(out / "heldout.npz")
    metrics = Metrics(
        model=path.name,
        bytes=path.stat().st_size,
        parameters=count_parameters(model),
        seed=SEED,
        heldout_samples=len(heldout.labels),
        heldout={"top-1": accuracy(path, heldout)},
        max_abs_diff=difference,
        torch=torch.__version__,
    )
    metrics.write(out)
    print(metrics)


if __name__ == "__main__":
    main()
