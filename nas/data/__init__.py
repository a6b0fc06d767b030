"""Images: where they come from, how they are split, decoded."""

# fmt: off
from nas.data.images import ImageData, ImageSet, TestSplit
from nas.data.info import DataInfo
from nas.data.loader import load_images
from nas.data.sources import spec_at

__all__ = ["DataInfo", "ImageData", "ImageSet", "TestSplit", "load_images", "spec_at"]
