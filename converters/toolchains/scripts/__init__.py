"""Programs of the built-in toolchains; they run inside those, where nothing of ours is installed."""
