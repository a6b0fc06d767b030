"""The images of a run: those that a search sees, and the test split, which it cannot reach."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nas.base import DataError, Reporter
from nas.data.samples import Source, problems_error
from nas.data.splits import Entry
from nas.data.store.part import Origin, Pixels, Stored, read_part
from nas.settings import DataConfig

if TYPE_CHECKING:
    from torch import Tensor

Triple = tuple[float, float, float]
_CHUNK = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class DataInfo:
    """What training, evaluation and a run's manifest keep of the images."""

    class_names: tuple[str, ...]  # one a class; the position is the label
    mean: Triple  # per channel of the train split, of pixels scaled to 0..1
    std: Triple  # per channel of the train split, of pixels scaled to 0..1
    flip_safe: bool  # whether a mirrored image keeps its class; false for digits
    # of the splits `train`, `search` and `test`, 16 hex digits over the stored images (encoded bytes where the source
    # has them) and labels: the same in every process and for every file order
    hashes: Mapping[str, str]
    # timm's: the side that is seen over that to which the shorter side is resized, below 1 with `data.stored_size`
    crop_pct: float = 1.0

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)


@dataclass(frozen=True, slots=True, eq=False)
class ImageSet:
    """Decoded images of one split, in an order that depends on their content and the seed only.

    They may be in a file, or in memory that is shared between processes: nothing writes into them.
    """

    images: Pixels | NDArray[np.uint8]  # [N, 3, S, S], uint8
    labels: NDArray[np.int64]  # [N], int64
    info: DataInfo  # of the data that the split is a part of; says how `normalized` normalises

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def digest(self) -> str:
        """First 16 hex digits of the SHA-256 over shape, labels and pixels."""
        sha = hashlib.sha256(str(tuple(self.images.shape)).encode())
        sha.update(np.ascontiguousarray(self.labels).data)
        for start in range(0, len(self), _CHUNK):
            sha.update(np.ascontiguousarray(self.images[start : start + _CHUNK]).data)
        return sha.hexdigest()[:16]

    @property
    def majority(self) -> float:
        """Share of the images that are of the most frequent class."""
        return float(np.bincount(self.labels).max() / len(self))

    def part(self, start: int, stop: int) -> "ImageSet":
        """The images from one number up to another, without a copy."""
        images = self.images.part(start, stop) if isinstance(self.images, Pixels) else self.images[start:stop]
        return replace(self, images=images, labels=self.labels[start:stop])

    def chosen(self, numbers: NDArray[np.integer]) -> "ImageSet":
        """A copy of some images, in the order of their numbers as given."""
        return replace(self, images=self.images[numbers], labels=self.labels[numbers])

    def uncut(self, numbers: NDArray[np.integer]) -> NDArray[np.uint8]:
        """A copy of some images as large as they are stored, [n, 3, S, S]."""
        return self.images.uncut(numbers) if isinstance(self.images, Pixels) else self.images[numbers]

    @property
    def stored_side(self) -> int:
        """Height and width of `uncut` images, pixels."""
        return self.images.stored_side if isinstance(self.images, Pixels) else self.images.shape[-1]

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
    image_size: int  # side of the images, pixels
    origin: Origin  # of the training images
    info: DataInfo  # of the data

    def open(self) -> ImageSet:
        """Open the test images; a DataError where they changed since the split, or some are unreadable."""
        origin = replace(self.origin, part="test" if self.source.test else "train")
        listing, stored = read_part(self.source.test or self.source.train, origin, Reporter(quiet=True))
        assert stored is not None, "images are kept"
        now = {entry.position: entry.fingerprint for entry in listing.entries if entry.pixels}
        if any(now.get(entry.position) != entry.fingerprint for entry in self.entries):
            if listing.unreadable and not self.config.skip_bad_images:
                raise problems_error(self.config.spec, [], listing.unreadable)
            raise DataError(
                f"{self.config.spec}: the test images changed since the splits were made",
                hint="restore the files, or start a new run",
            )
        return image_set(stored, self.entries, self.image_size, self.info)


def image_set(stored: Stored, entries: Sequence[Entry], image_size: int, info: DataInfo) -> ImageSet:
    """The images of a split, which are somewhere in a file."""
    labels = np.array([entry.label for entry in entries], dtype=np.int64)
    labels.setflags(write=False)
    return ImageSet(stored.pixels(entries, image_size), labels, info)
