"""Arrays that a record refers to inside blobs."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np
from numpy.typing import NDArray

from edge_sdk.bundle.blobs import BlobStore
from edge_sdk.bundle.record import ArrayRef
from edge_sdk.errors import BundleError


def read_array(ref: ArrayRef, blobs: BlobStore) -> NDArray[np.generic]:
    """Maps an array read-only from its blob.

    Raises:
        BundleError: The blob is missing, or the array is not inside it.
    """
    return read_arrays({"": ref}, blobs)[""]


def read_arrays(refs: Mapping[str, ArrayRef], blobs: BlobStore) -> dict[str, NDArray[np.generic]]:
    """Maps arrays read-only from their blobs, each blob once; raises as :func:`read_array`."""
    mapped: dict[str, NDArray[np.uint8]] = {}
    return {name: _read(ref, blobs, mapped) for name, ref in refs.items()}


def _read(
    ref: ArrayRef, blobs: BlobStore, mapped: dict[str, NDArray[np.uint8]]
) -> NDArray[np.generic]:
    digest, where = ref.blob.digest, f"blob {ref.blob.digest}"
    try:
        dtype = np.dtype(ref.dtype).newbyteorder("<")
    except TypeError as error:
        raise BundleError(f"not a numpy dtype: {ref.dtype!r}", where=where) from error
    end = ref.offset + prod(ref.shape) * dtype.itemsize
    inside = 0 <= ref.offset <= end <= ref.blob.size
    if dtype.hasobject or not dtype.itemsize or min(ref.shape, default=0) < 0 or not inside:
        raise BundleError(
            f"{ref.dtype} {list(ref.shape)} at byte {ref.offset} is not inside it", where=where
        )
    if digest not in mapped:
        blobs.check(ref.blob)
        # An empty file cannot be mapped.
        mapped[digest] = (
            np.memmap(blobs.path(digest), np.uint8, mode="r")
            if ref.blob.size
            else np.zeros(0, np.uint8)
        )
    return mapped[digest][ref.offset : end].view(dtype).reshape(ref.shape)
