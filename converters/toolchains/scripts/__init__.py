"""Programs of the built-in toolchains: they run inside those, without anything else of ours."""
