"""Engines shipped with edge-sdk: one module per engine, its library imported on first use."""
