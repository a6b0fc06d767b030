import io

import numpy as np
import pytest
import torch
from image_files import SIZE, all_contents, encode, error_of, load, load_both, write_folder
from odd_images import SIDE, odd_images, write_odd_images
from PIL import Image

from nas.data.samples import UnreadableImageError, decoded, fitted


def test_unreadable_images_are_counted_and_the_first_ten_listed(tmp_path):
    write_folder(tmp_path, per_class=20)
    victims = sorted((tmp_path / "cat").iterdir())[:7] + sorted((tmp_path / "owl").iterdir())[:7]
    for number, path in enumerate(victims):
        path.write_bytes((b"", b"<html>", path.read_bytes()[:-30])[number % 3])
    error = error_of(f"folder:{tmp_path}")
    assert "14 unreadable images" in error.message
    assert sum(str(path) in error.message for path in victims) == 10
    assert "the file is empty" in error.message
    assert "skip_bad_images" in error.hint


def test_skipped_images_are_left_out_and_counted(tmp_path):
    write_folder(tmp_path)
    victims = sorted((tmp_path / "cat").iterdir())[:3]
    for path in victims:
        path.write_bytes(b"junk")
    data, test = load_both(f"folder:{tmp_path}", skip_bad_images=True)
    assert len(data.train) + len(data.search) + len(test.open()) == 27
    assert "left out: 3 unreadable" in data.summary[1]


def test_damage_that_only_decoding_finds_is_left_out_too(tmp_path):
    write_folder(tmp_path / "train")
    write_folder(tmp_path / "test", per_class=2, seed=1)
    for path in sorted((tmp_path / "train" / "cat").iterdir())[:2]:
        path.write_bytes(path.read_bytes()[:-30])
    assert "2 unreadable images" in error_of(f"folder:{tmp_path}").message
    data = load(f"folder:{tmp_path}", skip_bad_images=True)
    assert len(data.train.images) == len(data.train.labels)
    assert len(data.train) + len(data.search) == 28
    assert "left out: 2 unreadable" in data.summary[1]


def test_a_class_whose_images_are_all_bad_is_an_error_even_when_skipping(tmp_path):
    write_folder(tmp_path)
    for path in (tmp_path / "dog").iterdir():
        path.write_bytes(b"junk")
    assert (
        "classes without a readable training image: dog" in error_of(f"folder:{tmp_path}", skip_bad_images=True).message
    )


@pytest.mark.parametrize(
    ("form", "mode"),
    [
        ("PNG", "L"),
        ("PNG", "LA"),
        ("PNG", "1"),
        ("PNG", "P"),
        ("PNG", "RGBA"),
        ("JPEG", "CMYK"),
        ("JPEG", "L"),
        ("GIF", "P"),
    ],
)
def test_every_colour_mode_becomes_rgb(tmp_path, form, mode):
    write_folder(tmp_path)
    rng = np.random.default_rng(3)
    odd = encode(rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8), form, mode)
    (tmp_path / "cat" / f"odd.{form.lower()}").write_bytes(odd)
    expected = np.asarray(Image.open(io.BytesIO(odd)).convert("RGB")).transpose(2, 0, 1).tobytes()
    assert expected in set.union(*all_contents(f"folder:{tmp_path}"))


@pytest.mark.parametrize(("kind", "words"), [(np.uint16, "more than 8 bits"), (np.float32, "floating point")])
def test_images_without_a_white_level_are_reported(tmp_path, kind, words):
    write_folder(tmp_path)
    path = tmp_path / "cat" / "deep.tiff"
    path.write_bytes(encode(np.full((SIZE, SIZE), 4000, kind), "TIFF"))
    message = error_of(f"folder:{tmp_path}").message
    assert words in message
    assert str(path) in message


@pytest.mark.parametrize("shape", [(40, 30), (30, 41), (5, 9), (16, 16), (17, 33)])
def test_pixels_equal_timms_evaluation_transform(tmp_path, shape):
    from timm.data import create_transform

    write_folder(tmp_path)
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8))
    image.save(tmp_path / "cat" / "odd.png")
    transform = create_transform((3, 16, 16), crop_pct=1, interpolation="bicubic", mean=(0,) * 3, std=(1,) * 3)
    expected = (transform(image) * 255).round().to(torch.uint8).numpy().tobytes()
    assert expected in set.union(*all_contents(f"folder:{tmp_path}", size=16))


def test_a_long_strip_takes_no_more_memory_than_its_middle(tmp_path):
    write_folder(tmp_path)
    Image.new("L", (2_000_000, 1), 77).save(tmp_path / "cat" / "strip.png")
    assert bytes([77]) * 3 * SIZE * SIZE in set.union(*all_contents(f"folder:{tmp_path}"))


ODD = odd_images()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("name", [name for name, odd in ODD.items() if not isinstance(odd.expected, str)])
def test_odd_images_become_upright_rgb_of_their_first_frame(name):
    assert np.array_equal(fitted(decoded(ODD[name].content).image, SIDE), ODD[name].expected)


@pytest.mark.parametrize("name", [name for name, odd in ODD.items() if isinstance(odd.expected, str)])
def test_what_cannot_be_an_image_says_why(name):
    with pytest.raises(UnreadableImageError, match=ODD[name].expected):
        decoded(ODD[name].content)


@pytest.mark.parametrize(("orientation", "size"), [(6, (20, 30)), (3, (30, 20))])
def test_a_turned_image_is_upright_and_says_so(orientation, size):
    stream = io.BytesIO()
    Image.new("L", (30, 20)).save(stream, "JPEG", exif=_exif(orientation))
    image, mode, is_turned = decoded(stream.getvalue())
    assert (image.size, image.mode, mode, is_turned) == (size, "RGB", "L", True)


def _exif(orientation):
    tags = Image.Exif()
    tags[274] = orientation
    return tags


def test_turned_images_are_counted_and_damaged_ones_named(tmp_path):
    write_odd_images(tmp_path / "odd")
    write_folder(tmp_path, classes=("plain", "other"))
    data = load(f"folder:{tmp_path}")
    turned = [name for name in ODD if "turned" in name or ("orientation" in name and name[12] in "2345678")]
    assert len(turned) == 11
    assert ", 11 turned as EXIF says" in data.summary[3]
    write_odd_images(tmp_path / "odd", usable=False)
    message = error_of(f"folder:{tmp_path}").message
    refused = [name for name, odd in ODD.items() if isinstance(odd.expected, str)]
    assert all(name in message for name in refused)
    assert load(f"folder:{tmp_path}", skip_bad_images=True).summary[1].split("; ")[1].endswith("6 unreadable")
