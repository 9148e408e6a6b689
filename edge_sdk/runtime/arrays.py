"""Arrays that a record refers to inside blobs."""

from __future__ import annotations

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
    where = f"blob {ref.blob.digest}"
    blobs.check(ref.blob)
    try:
        dtype = np.dtype(ref.dtype).newbyteorder("<")
    except TypeError as error:
        raise BundleError(f"not a numpy dtype: {ref.dtype!r}", where=where) from error
    inside = 0 <= ref.offset <= ref.blob.size - prod(ref.shape) * dtype.itemsize
    if dtype.hasobject or min(ref.shape, default=0) < 0 or not inside:
        raise BundleError(
            f"{ref.dtype} {list(ref.shape)} at byte {ref.offset} is not inside it", where=where
        )
    if not prod(ref.shape):
        return np.zeros(ref.shape, dtype)  # an empty file cannot be mapped
    return np.memmap(
        blobs.path(ref.blob.digest), dtype, mode="r", offset=ref.offset, shape=ref.shape
    )
