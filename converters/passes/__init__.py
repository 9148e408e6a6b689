"""Graph passes, one per file; see :mod:`converters.passes.base`."""
