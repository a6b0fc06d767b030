"""Images: where they come from, how they are split, decoded."""

from nas.data.images import ImageData, ImageSet, load_images, sealed_test_split
from nas.data.splits import split_hash

__all__ = ["ImageData", "ImageSet", "load_images", "sealed_test_split", "split_hash"]
