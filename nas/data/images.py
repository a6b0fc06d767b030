"""The images of a run, decoded: those that a search sees, and the test split, which it cannot reach."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nas.base import DataError
from nas.data.info import DataInfo
from nas.data.samples import Source, problems_error
from nas.data.splits import Entry, decode, list_samples
from nas.settings import DataConfig

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class ImageSet:
    """Decoded images of one split, in an order that depends on their content and the seed only.

    The arrays may be read-only and shared between processes: nothing writes into them.
    """

    images: NDArray[np.uint8]  # [N, 3, S, S], uint8
    labels: NDArray[np.int64]  # [N], int64
    info: DataInfo  # of the data that the split is a part of; says how `normalized` normalises

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def digest(self) -> str:
        """First 16 hex digits of the SHA-256 over shape, labels and pixels."""
        sha = hashlib.sha256(str(tuple(self.images.shape)).encode())
        sha.update(np.ascontiguousarray(self.labels).data)
        sha.update(np.ascontiguousarray(self.images).data)
        return sha.hexdigest()[:16]

    def part(self, start: int, stop: int) -> "ImageSet":
        """The images from one number up to another, without a copy."""
        return replace(self, images=self.images[start:stop], labels=self.labels[start:stop])

    def chosen(self, numbers: NDArray[np.integer]) -> "ImageSet":
        """A copy of some images, in the order of their numbers as given."""
        return replace(self, images=self.images[numbers], labels=self.labels[numbers])

    def normalized(self, numbers: NDArray[np.integer] | Sequence[int] | slice) -> "Tensor":
        """The chosen images, [n, 3, S, S] float32: pixels / 255, minus the mean, divided by the deviation."""
        import torch

        mean, std = (
            torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1) for values in (self.info.mean, self.info.std)
        )
        pixels = torch.from_numpy(self.images[numbers].astype(np.float32, order="C"))
        return pixels.div_(255).sub_(mean).div_(std)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageData:
    """The images that a search may see. No test image can be reached from them (law 7)."""

    train: ImageSet  # for weights
    search: ImageSet  # ranks candidates; carved from the training images
    summary: tuple[str, ...] = ()  # four lines for people: source, sizes of the splits, class balance, pixels

    @property
    def info(self) -> DataInfo:
        """What is known of the images without reading one."""
        return self.train.info


@dataclass(frozen=True, slots=True, kw_only=True)
class TestSplit:
    """The right to read the test split of a run; holds no image.

    Who has one can measure on test images, and nobody else can. So it goes to what makes a final number, `export`
    and `retrain`, and never to what trains, searches or ranks: these are given `ImageData`.
    """

    source: Source  # where the images are read again
    entries: list[Entry]  # which of them
    config: DataConfig  # of the data
    image_size: int  # side of the decoded images, pixels
    info: DataInfo  # of the data

    def open(self) -> ImageSet:
        """Read and decode the test images; a DataError where they changed since the split, or some are unreadable."""
        read = self.source.test or self.source.train
        expected = Counter((entry.fingerprint, entry.label) for entry in self.entries)
        listing = list_samples(read(), self.info.num_classes)
        positions: dict[tuple[bytes, int], list[int]] = {}
        for entry in listing.entries:
            positions.setdefault((entry.fingerprint, entry.label), []).append(entry.position)
        if any(len(positions.get(key, ())) != count for key, count in expected.items()):
            raise DataError(
                f"{self.config.spec}: the test images changed since the splits were made",
                hint="restore the files, or start a new run",
            )
        entries = [replace(entry, position=positions[entry.fingerprint, entry.label].pop()) for entry in self.entries]
        (part,), unreadable = decode(read(), [entries], self.image_size)
        if unreadable and not self.config.skip_bad_images:
            raise problems_error(self.config.spec, [], unreadable)
        return ImageSet(part.images, part.labels, self.info)
