"""Images: where they come from, how they are split, decoded."""

# fmt: off
from nas.data.folder_source import UNLABELLED, images_below
from nas.data.images import DataInfo, ImageData, ImageSet, TestSplit
from nas.data.loader import class_names_of, every_image, load_images, sizes_of_some
from nas.data.samples import UnreadableImageError, decoded, fitted
from nas.data.sources import spec_at
from nas.data.store.folder import cache_folder, stored_files, sweep_store
from nas.data.summary import IMBALANCED

__all__ = [
    "IMBALANCED", "UNLABELLED", "DataInfo", "ImageData", "ImageSet", "TestSplit", "UnreadableImageError",
    "cache_folder", "class_names_of", "decoded", "every_image", "fitted", "images_below", "load_images",
    "sizes_of_some", "spec_at", "stored_files", "sweep_store",
]
