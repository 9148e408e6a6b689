"""Measurements of this project, each a module to run; results as JSON in ``results/``."""
