"""Readers of source models; each is an entry point of the group ``edge_sdk.sources``."""
