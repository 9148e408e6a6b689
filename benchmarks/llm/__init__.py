"""Dialogue models measured beside their peers: ``python -m benchmarks.llm``."""
