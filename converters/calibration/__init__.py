"""Activation statistics: collecting them, and turning them into quantization ranges."""
