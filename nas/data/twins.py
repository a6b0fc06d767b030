"""The same picture stored twice: by its pixels, or nearly so."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

THUMBNAIL = (9, 8)  # pixels, grey; 8 differences a row make 64 bits

# Of 800 Caltech-101 images written again as JPEG of quality 75 and 40, 99 and 98 % are within these bounds, and at half
# their size about nine in ten; of 400 others none, nor any test image of CIFAR-10 or digits.
_STEP = 2  # grey levels; noise of an encoder in flat parts stays below
_MOST_BITS = 3  # that differ
_MOST_LEVELS = 3.0  # mean difference of the thumbnails; silhouettes alone, as in Fashion-MNIST, are often alike


def pixel_hash(image: Image.Image) -> bytes:
    """SHA-256 of an RGB image's size and pixels: the same however it is stored without loss. 32 bytes."""
    return hashlib.sha256(f"{image.width} {image.height}:".encode() + image.tobytes()).digest()


def thumbnail(image: Image.Image) -> bytes:
    """A tiny grey copy, 8 rows of 9 pixels, which stays nearly the same when an image is resized or encoded again."""
    return image.convert("L").resize(THUMBNAIL, Image.Resampling.BOX).tobytes()


def alike(some: Sequence[bytes], others: Sequence[bytes]) -> list[int]:
    """Numbers of those thumbnails of `others` that are nearly one of `some`.

    At most 3 of the 64 bits of their difference hashes differ, so that one quarter of the bits is equal: only images
    with a common quarter are compared.
    """
    near, far = _grey(some), _grey(others)
    near_bits, far_bits = _difference_hash(near), _difference_hash(far)
    found = np.zeros(len(far), dtype=bool)
    for quarter in range(4):
        keys = near_bits.view(np.uint16).reshape(-1, 4)[:, quarter]
        order = np.argsort(keys, kind="stable")
        wanted = far_bits.view(np.uint16).reshape(-1, 4)[:, quarter]
        starts, ends = (np.searchsorted(keys[order], wanted, side) for side in ("left", "right"))
        for number in np.flatnonzero(~found & (starts < ends)):
            candidates = order[starts[number] : ends[number]]
            bits = np.bitwise_count(near_bits[candidates] ^ far_bits[number])
            candidates = candidates[bits <= _MOST_BITS]
            levels = np.abs(near[candidates].astype(np.int16) - far[number]).mean(axis=(1, 2))
            found[number] = (levels <= _MOST_LEVELS).any()
    return [int(number) for number in np.flatnonzero(found)]


def _grey(thumbnails: Sequence[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(thumbnails), dtype=np.uint8).reshape(-1, *reversed(THUMBNAIL))


def _difference_hash(grey: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """64 bits an image: where the next pixel of a row is clearly brighter."""
    bits = grey[:, :, 1:].astype(np.int16) > grey[:, :, :-1].astype(np.int16) + _STEP
    return np.packbits(bits.reshape(len(grey), 64), axis=1).view(np.uint64).reshape(-1)
