"""A rotating machine and its six sensors, simulated at ten samples per second.

An operator switches the load at random. The shaft follows the load with some inertia, the
vibration follows the shaft (imbalance grows with the square of the speed, and a loose
mounting adds the second harmonic), the motor current follows load and acceleration, and the
bearing warms and cools slowly. Every machine has its own imbalance, inertia and cooling.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Signal = NDArray[np.float32]

CHANNELS = ("vibration_x", "vibration_y", "vibration_z", "speed", "current", "temperature")

_SECONDS = 0.1
_LOADS = (0.0, 0.5, 0.8, 1.0)
_SWITCH_RATE = 0.01
_NOISE = (0.05, 0.05, 0.05, 0.01, 0.02, 0.01)


def record(machines: int, steps: int, rng: np.random.Generator) -> Signal:
    """Simulate machines from standstill at room temperature.

    Args:
        machines: Independent machines, each with its own constants.
        steps: Samples to record, a tenth of a second apart.
        rng: Source of all randomness.

    Returns:
        float32 [machines, steps, channels], each channel in about -2..2.
    """
    imbalance = rng.uniform(0.6, 1.4, machines)
    looseness = rng.uniform(0.1, 0.5, machines)
    inertia = rng.uniform(0.5, 2.0, machines)
    cooling = rng.uniform(10.0, 30.0, machines)
    top_hertz = rng.uniform(1.0, 2.0, machines)
    load = rng.choice(_LOADS, machines)
    speed, temperature = np.zeros(machines), np.zeros(machines)
    phase = rng.uniform(0, 2 * np.pi, machines)
    signal = np.empty((machines, steps, len(CHANNELS)))
    for step in range(steps):
        switched = rng.random(machines) < _SWITCH_RATE
        load = np.where(switched, rng.choice(_LOADS, machines), load)
        acceleration = (load - speed) / inertia
        speed = speed + _SECONDS * acceleration
        phase = phase + 2 * np.pi * _SECONDS * top_hertz * speed
        temperature = temperature + _SECONDS * (speed**2 + 0.5 * load - temperature) / cooling
        shake = imbalance * speed**2
        signal[:, step] = np.stack(
            [
                shake * np.sin(phase),
                shake * np.cos(phase),
                shake * looseness * np.sin(2 * phase),
                speed,
                0.3 * load + 0.4 * acceleration,
                temperature,
            ],
            axis=1,
        )
    return (signal + rng.normal(0.0, _NOISE, signal.shape)).astype(np.float32)
