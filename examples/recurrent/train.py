"""Train the machine forecaster: a stateful LSTM that predicts the next sensor sample.

The signals are simulated (``machine.py``); nothing is downloaded. From the repository root, about
a minute on one core:

    pip install torch==2.13.0 onnx onnxscript onnxruntime
    python -m examples.recurrent.train

The same seed gives the same model on the same machine; another CPU may differ in the last
digits of the weights and of the error.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from examples.exporting import (
    Metrics,
    count_parameters,
    export_onnx,
    seed_everything,
    session,
)
from examples.recurrent.machine import CHANNELS, Signal, record

SEED = 3
TRAIN, CALIBRATION, HELDOUT = 256, 16, 24
CALLS, CHUNK = 20, 16
"""Calls per recording, and samples per call."""
HIDDEN = 128
EPOCHS, BATCH, PEAK_RATE = 60, 32, 4e-3


class Forecaster(nn.Module):
    """One LSTM layer whose output is a correction to "nothing changes"."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(len(CHANNELS), HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, len(CHANNELS))

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Forecast each sample's successor and carry the state on.

        Args:
            x: Samples [batch, steps, channels].
            h: Hidden state [1, batch, hidden], zeros before the first call.
            c: Cell state [1, batch, hidden], zeros before the first call.

        Returns:
            Forecasts [batch, steps, channels] of the next sample at every step, and the new h, c.
        """
        out, (hn, cn) = self.lstm(x, (h, c))
        return x + self.head(out), hn, cn


def initial_state(batch: int) -> tuple[Tensor, Tensor]:
    """State before the first call."""
    return torch.zeros(1, batch, HIDDEN), torch.zeros(1, batch, HIDDEN)


def train(model: Forecaster, signal: Signal) -> None:
    """Fit `model` to forecast one step ahead over whole recordings."""
    x, target = torch.from_numpy(signal[:, :-1]), torch.from_numpy(signal[:, 1:])
    steps = len(x) // BATCH
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, EPOCHS * steps)
    model.train()
    for epoch in range(EPOCHS):
        total = 0.0
        for rows in torch.randperm(len(x)).split(BATCH):
            forecast, _, _ = model(x[rows], *initial_state(len(rows)))
            loss = functional.mse_loss(forecast, target[rows])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}/{EPOCHS}: loss {total / steps:.5f}", flush=True)


def in_calls(signal: Signal) -> Signal:
    """Cut recordings [machines, steps, channels] to [machines, calls, chunk, channels]."""
    return signal.reshape(len(signal), CALLS, CHUNK, len(CHANNELS))


def heldout_errors(path: Path, x: Signal, target: Signal) -> dict[str, float]:
    """Mean squared error of the ONNX file, state carried from call to call, and of persistence.

    Args:
        path: The ONNX file.
        x: Recordings in calls [machines, calls, chunk, channels].
        target: The next sample of each sample in `x`, same shape.
    """
    engine = session(path)
    forecast = np.empty_like(x)
    for machine, recording in enumerate(x):
        h, c = (state.numpy() for state in initial_state(1))
        for call, chunk in enumerate(recording):
            forecast[machine, call], h, c = engine.run(
                ["y", "hn", "cn"], {"x": chunk[None], "h": h, "c": c}
            )
    model = float(np.square(forecast - target).mean())
    persistence = float(np.square(x - target).mean())
    return {"mse": model, "mse persistence": persistence, "ratio": model / persistence}


def main() -> None:
    """Simulate, train, export, measure, and write everything this folder holds."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    seed_everything(SEED)
    rng = np.random.default_rng(SEED)
    training, calibration, heldout = (
        record(machines, CALLS * CHUNK + 1, rng) for machines in (TRAIN, CALIBRATION, HELDOUT)
    )
    model = Forecaster()
    train(model, training)
    path = out / "recurrent.onnx"
    h, c = initial_state(1)
    example = {"x": torch.from_numpy(calibration[:1, 100 : 100 + CHUNK]), "h": h, "c": c}
    difference = export_onnx(model, example, ["y", "hn", "cn"], path)
    x, target = in_calls(heldout[:, :-1]), in_calls(heldout[:, 1:])
    np.savez_compressed(out / "calibration.npz", x=in_calls(calibration[:, :-1]))
    np.savez_compressed(out / "heldout.npz", x=x, target=target)
    metrics = Metrics(
        model=path.name,
        bytes=path.stat().st_size,
        parameters=count_parameters(model),
        seed=SEED,
        heldout_samples=len(x),
        heldout=heldout_errors(path, x, target),
        max_abs_diff=difference,
        torch=torch.__version__,
    )
    metrics.write(out)
    print(metrics)


if __name__ == "__main__":
    main()
