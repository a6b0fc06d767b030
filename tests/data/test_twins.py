"""The same picture stored twice."""

import io

import numpy as np
import pytest
from PIL import Image

from nas.data.twins import alike, pixel_hash, thumbnail


def photo(seed: int, side: int = 120) -> Image.Image:
    """Something smooth."""
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def again(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(io.BytesIO(stream.getvalue()))


def test_a_pixel_hash_is_of_size_and_pixels():
    flat = [Image.new("RGB", size, colour) for size in ((4, 6), (6, 4)) for colour in ("red", "blue")]
    assert len({pixel_hash(image) for image in flat}) == 4
    assert pixel_hash(flat[0]) == pixel_hash(flat[0].copy())


@pytest.mark.parametrize(
    "change",
    [
        lambda image: again(image, 75),
        lambda image: again(image, 40),
        lambda image: image.resize((60, 60), Image.Resampling.BICUBIC),
        lambda image: image.convert("L").convert("RGB"),
    ],
)
def test_encoded_again_or_resized_is_nearly_the_same(change):
    some = [thumbnail(photo(seed)) for seed in range(50)]
    found = alike(some, [thumbnail(change(photo(seed))) for seed in range(40, 60)])
    assert len([number for number in found if number < 10]) >= 8  # now and then one is not found
    assert not [number for number in found if number >= 10]


def test_none_is_nearly_like_nothing():
    assert alike([], [thumbnail(photo(0))]) == []
    assert alike([thumbnail(photo(0))], []) == []


def test_equal_silhouettes_of_other_brightness_are_not_the_same():
    first, second = (Image.new("RGB", (28, 28)) for _ in range(2))
    first.paste((90, 90, 90), (8, 4, 20, 24))
    second.paste((240, 240, 240), (8, 4, 20, 24))
    assert alike([thumbnail(first)], [thumbnail(second)]) == []
