"""Many callers: versions of models behind names, their health, and the local HTTP API."""
