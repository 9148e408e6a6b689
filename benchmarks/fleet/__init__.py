"""A fleet on one machine, all in processes of their own: ``python -m benchmarks fleet``."""
