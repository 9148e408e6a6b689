"""Models, bundles and variants side by side, under one protocol.

The first one given is the baseline: the others' outputs are compared with its
own, on the same data, and their latency with its latency, turn by turn.
"""

from converters.comparison.compare import Request, compare
from converters.comparison.model import Comparison, Dialogue, Row

__all__ = ["Comparison", "Dialogue", "Request", "Row", "compare"]
