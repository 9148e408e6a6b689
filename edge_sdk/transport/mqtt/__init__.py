"""MQTT for services: a client for asyncio that is built for throughput.

Messages come in batches, as many as were read at once, and are acknowledged by the batch
once what they ask for is done: what was not is delivered again.
"""

from __future__ import annotations

from edge_sdk.transport.mqtt.client import Client
from edge_sdk.transport.mqtt.codec import Received

__all__ = ["Client", "Received"]
