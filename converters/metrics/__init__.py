"""Task metrics by name: the registry (``edge_sdk.metrics``) and the ones that come with it.

A metric is a function of predictions and references, one array per sample, so
that another one is a function in a package with an entry point, or
``--metric module:function`` without any.
"""

from converters.metrics.base import Metric, Sequences, find_metric, metric_names

__all__ = ["Metric", "Sequences", "find_metric", "metric_names"]
