"""The bundle format: records, OCI layout, content-addressed blobs, the device store.

Pure: imports neither numpy nor an engine.
"""
