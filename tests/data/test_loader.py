import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from image_files import (
    SIZE,
    all_contents,
    contents,
    encode,
    encoded_images,
    error_of,
    load,
    load_both,
    load_splits,
    write_folder,
    write_parquet,
)
from PIL import Image

from nas.data.loader import _crop_pct, sizes_of_some
from nas.settings.config import DataConfig


@pytest.fixture(scope="module")
def both():
    return load_both("digits")


@pytest.fixture(scope="module")
def digits(both):
    return both[0]


# --- digits ---


def test_digits_are_all_there_and_carved_by_the_fractions(both):
    digits, test = both[0], both[1].open()
    assert (len(digits.train), len(digits.search), len(test)) == (1151, 287, 359)
    assert digits.info.class_names == tuple("0123456789")
    assert digits.info.num_classes == 10
    assert not digits.info.flip_safe
    for images in (digits.train, digits.search, test):
        assert images.images.shape[1:] == (3, SIZE, SIZE)
        assert images.images.dtype == np.uint8
        assert images.labels.dtype == np.int64
        assert set(images.labels.tolist()) == set(range(10))
        with pytest.raises(TypeError, match="does not support item assignment"):
            images.images[0] = 0
        assert not images.labels.flags.writeable
    pixels = np.asarray(digits.train.images)
    assert pixels.max() == 255
    assert np.array_equal(pixels[:, 0], pixels[:, 2])


def test_moments_are_those_of_the_train_split(both):
    digits, test = both
    pixels = np.asarray(digits.train.images) / 255
    assert digits.info.mean == pytest.approx(pixels.mean(axis=(0, 2, 3)).tolist(), abs=1e-9)
    assert digits.info.std == pytest.approx(pixels.std(axis=(0, 2, 3)).tolist(), abs=1e-9)
    normalized = digits.train.normalized(slice(None))
    assert normalized.mean().item() == pytest.approx(0, abs=1e-5)
    assert test.open().info == digits.search.info == digits.info


def test_a_constant_channel_is_not_divided_by_zero(tmp_path):
    for number in range(8):
        pixels = np.full((SIZE, SIZE, 3), (number * 9, 7, 0), np.uint8)
        path = tmp_path / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode(pixels))
    data = load(f"folder:{tmp_path}")
    assert data.info.std[1:] == (1.0, 1.0)
    assert data.train.normalized(slice(None)).isfinite().all()


def test_classes_are_mixed_in_every_split(digits):
    # Racing reads a prefix of the search split: its first images must not be of a few classes.
    assert len(set(digits.search.labels[:40].tolist())) >= 8
    assert len(set(digits.train.labels[:40].tolist())) >= 8


def test_summary_is_four_lines_with_the_counts(digits):
    lines = digits.summary
    assert len(lines) == 4
    assert "digits" in lines[0]
    assert "1,797 images of 8x8, 10 classes" in lines[0]
    assert "train 1,151, search 287, test 359" in lines[1]
    assert "train 111 to 117, search 28 to 29" in lines[2]
    assert "1,797 grey, all as RGB 8x8" in lines[3]


# --- splits ---


def test_splits_are_the_same_in_another_process(both):
    digits, test = both
    code = (
        "from nas.settings import DataConfig\nfrom nas.data import load_images\n"
        "data, test = load_images(DataConfig(), 8, 0)\n"
        "import sys, json\n"
        "sets = (data.train, data.search, test.open())\n"
        "sys.stdout.write(json.dumps([data.info.hashes, [images.digest for images in sets]]))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    output = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    digests = [images.digest for images in (digits.train, digits.search, test.open())]
    assert json.loads(output) == [digits.info.hashes, digests]


def test_splits_depend_on_the_seed_only(digits):
    other = load("digits", seed=1)
    assert all(other.info.hashes[split] != digits.info.hashes[split] for split in ("train", "search", "test"))
    assert load("digits").info.hashes == digits.info.hashes


def test_hash_of_the_own_test_split_does_not_depend_on_the_seed(tmp_path):
    write_folder(tmp_path / "train")
    write_folder(tmp_path / "test", per_class=2, seed=1)
    one, two = load(f"folder:{tmp_path}", seed=0), load(f"folder:{tmp_path}", seed=1)
    assert one.info.hashes["test"] == two.info.hashes["test"]
    assert one.info.hashes["train"] != two.info.hashes["train"]


def test_hashes_do_not_depend_on_the_image_size(digits):
    larger = load("digits", size=16)
    assert larger.info.hashes == digits.info.hashes
    assert larger.train.images.shape[2:] == (16, 16)


def test_order_and_names_of_files_do_not_matter(tmp_path):
    images, labels = encoded_images(40), [number % 3 for number in range(40)]
    images += images[:10]
    labels += [(label + 1) % 3 for label in labels[:10]]  # copies under another class
    forward = write_parquet(tmp_path / "forward.parquet", images, labels)
    backward = write_parquet(tmp_path / "backward.parquet", images[::-1], labels[::-1], paths=["cat/1.png"] * 50)
    one, two = load_splits(f"parquet:{forward}"), load_splits(f"parquet:{backward}")
    assert one[0].info.hashes == two[0].info.hashes
    assert [images.digest for images in one] == [images.digest for images in two]


def test_splits_do_not_overlap_and_hold_everything(tmp_path):
    train, search, test = all_contents(f"folder:{write_folder(tmp_path)}")
    assert not train & search
    assert not (train | search) & test
    assert len(train) + len(search) + len(test) == 30


def pictures(number, seed=0, side=24):
    return np.random.default_rng(seed).integers(0, 256, (number, side, side, 3), dtype=np.uint8)


STORED = {  # the same pixels in other bytes
    "bmp": lambda pixels: encode(pixels, "BMP"),
    "tif": lambda pixels: encode(pixels, "TIFF"),
    "png": lambda pixels: encode(pixels) + b"\0",
    "webp": lambda pixels: _saved(pixels, "WEBP", lossless=True),
    "rgba.png": lambda pixels: encode(pixels, mode="RGBA"),
    "turned.png": lambda pixels: _saved(np.rot90(pixels), "PNG", exif=_exif(6)),
}


def _saved(pixels, form, **options):
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, form, **options)
    return stream.getvalue()


def _exif(orientation):
    tags = Image.Exif()
    tags[274] = orientation
    return tags


@pytest.mark.parametrize("seed", range(3))
def test_images_of_the_same_pixels_share_a_split_however_they_are_stored(tmp_path, seed):
    shown = pictures(30)
    images = [encode(one) for one in shown] + [STORED[[*STORED][i % len(STORED)]](one) for i, one in enumerate(shown)]
    path = write_parquet(tmp_path / "twice.parquet", images, [number % 3 for number in range(30)] * 2)
    data, test = load_both(f"parquet:{path}", seed=seed, search_fraction=0.3, test_fraction=0.3)
    splits = data.train, data.search, test.open()
    train, search, held_out = map(contents, splits)
    assert not train & search
    assert not (train | search) & held_out
    assert sum(map(len, splits)) == 60


@pytest.mark.parametrize("form", STORED)
@pytest.mark.parametrize("other", ["test", "val"])
def test_what_another_split_shows_is_left_out_of_training(tmp_path, form, other):
    shown = pictures(36)
    for number, one in enumerate(shown):
        for split in ("train", "test", "val"):
            is_leak = split == other and number < 5
            if split == "train" or is_leak or number // 9 == (2 if split == "test" else 3):
                folder = tmp_path / split / "abc"[number % 3]
                folder.mkdir(parents=True, exist_ok=True)
                if split == "train" and number // 9 > 1:
                    continue
                (folder / f"{number}.{form}").write_bytes(STORED[form](one) if is_leak else encode(one))
    data, test = load_both(f"folder:{tmp_path}")
    assert (len(data.train), len(data.search) + len(test.open())) == (13, 23)
    assert "left out: 5 of train that are also in search or test" in data.summary[1]
    assert not contents(data.train) & (contents(data.search) | contents(test.open()))


@pytest.mark.parametrize("where", ["train/b", "test/b", "test/a"])
def test_what_is_found_under_two_labels_is_named_and_left_out(tmp_path, where):
    for split, seed in (("train", 0), ("test", 1)):
        for number, one in enumerate(pictures(20, seed)):
            folder = tmp_path / split / "ab"[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}.png").write_bytes(encode(one))
    clash = pictures(20)[2 if where == "test/b" else 3 if where == "test/a" else 4]
    (tmp_path / where / "again.bmp").write_bytes(encode(clash, "BMP"))
    data, test = load_both(f"folder:{tmp_path}")
    assert len(data.train) + len(data.search) == 19
    assert len(test.open()) == 20
    assert "2 whose pixels are found under several labels: " in data.summary[1]
    assert "again.bmp" in data.summary[1]


def test_classes_of_nothing_but_contradictions_are_an_error_that_says_so(tmp_path):
    for number, one in enumerate(pictures(8)):
        for folder in (tmp_path / "a", tmp_path / ("b" if number < 4 else "c")):
            folder.mkdir(exist_ok=True)
            (folder / f"{number}.png").write_bytes(encode(one))
    message = error_of(f"folder:{tmp_path}").message
    assert (
        "without a readable training image: a, b, c (16 are found under several labels: they do not count)" in message
    )


def test_test_images_that_nearly_look_like_one_of_train_are_counted_and_kept(tmp_path):
    smooth = [Image.fromarray(one).resize((96, 96), Image.Resampling.BICUBIC) for one in pictures(30, side=6)]
    for number, one in enumerate(smooth):
        folder = tmp_path / "train" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        one.save(folder / f"{number}.png")
    for number, one in enumerate(pictures(10, seed=7, side=6)):
        folder = tmp_path / "test" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(one).resize((96, 96), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    assert "nearly" not in load(f"folder:{tmp_path}").summary[1]
    smooth[0].save(tmp_path / "test" / "a" / "again.jpg", quality=70)
    smooth[1].resize((61, 61), Image.Resampling.BICUBIC).save(tmp_path / "test" / "b" / "again.png")
    data, test = load_both(f"folder:{tmp_path}")
    assert "; 2 of test nearly look like one of train" in data.summary[1]
    assert (len(data.train) + len(data.search), len(test.open())) == (30, 12)


def test_every_class_is_in_every_split_even_when_small(tmp_path):
    write_folder(tmp_path, per_class=3)
    data, test = load_both(f"folder:{tmp_path}", search_fraction=0.01, test_fraction=0.01)
    for images in (data.train, data.search, test.open()):
        assert sorted(images.labels.tolist()) == [0, 1, 2]


def test_a_class_too_small_for_all_splits_is_an_error(tmp_path):
    write_folder(tmp_path, per_class=4)
    for path in sorted((tmp_path / "dog").iterdir())[2:]:
        path.unlink()
    error = error_of(f"folder:{tmp_path}")
    assert "too few different images" in error.message
    assert "dog" in error.message
    assert "cat" not in error.message.split("split:")[1]


def test_small_classes_can_be_left_out(tmp_path):
    write_folder(tmp_path, per_class=4)
    for path in sorted((tmp_path / "dog").iterdir())[1:]:
        path.unlink()
    assert "data.skip_small_classes=true" in error_of(f"folder:{tmp_path}").hint
    data, test = load_both(f"folder:{tmp_path}", skip_small_classes=True)
    assert data.info.class_names == ("cat", "owl")
    assert "left out 1 class with too few images: dog" in data.summary[0]
    assert len(data.train) + len(data.search) + len(test.open()) == 8
    assert set(test.open().labels.tolist()) == {0, 1}
    (tmp_path / "dog").rename(tmp_path / "zebra")
    assert load(f"folder:{tmp_path}", skip_small_classes=True).info.hashes == data.info.hashes


def test_damage_is_told_before_a_class_is_left_out_for_it(tmp_path):
    write_folder(tmp_path)
    for path in (tmp_path / "dog").iterdir():
        path.write_bytes(b"junk")
    assert "10 unreadable images" in error_of(f"folder:{tmp_path}", skip_small_classes=True).message
    data = load(f"folder:{tmp_path}", skip_small_classes=True, skip_bad_images=True)
    assert data.info.class_names == ("cat", "owl")


def test_when_every_class_is_small_none_is_left(tmp_path):
    write_folder(tmp_path, per_class=1)
    assert "at least 2 classes are needed, found 0" in error_of(f"folder:{tmp_path}", skip_small_classes=True).message


def test_no_search_split_is_an_error():
    assert "data.search_fraction" in error_of("digits", search_fraction=0).message


def test_no_test_fraction_means_no_test_split():
    data, test = load_both("digits", test_fraction=0)
    assert len(data.train) + len(data.search) == 1797
    assert "test 0 (test: none)" in data.summary[1]
    assert test is None


def test_the_share_that_is_cropped_makes_the_stored_side_in_timms_arithmetic():
    for size in (1, 7, 8, 32, 96, 160, 224, 384):
        assert _crop_pct(size, size) == 1
        for side in range(size, 2 * size + 60):
            share = _crop_pct(size, side)
            assert math.floor(size / share) == side
            assert share == pytest.approx(size / side, rel=1e-12)


# --- a look at the sizes ---


def test_some_sizes_are_read_without_decoding(tmp_path):
    write_folder(tmp_path / "images")
    (tmp_path / "images" / "cat" / "bad.png").write_bytes(b"nothing")
    (tmp_path / "images" / "cat" / "empty.png").write_bytes(b"")
    write_parquet(tmp_path / "p.parquet", encoded_images(9), [0, 1, 2] * 3)
    for spec, sizes, count in (
        ("digits", [(8, 8)] * 450, 1797),
        (f"folder:{tmp_path / 'images'}", [(SIZE, SIZE)] * 30, 32),
        (f"parquet:{tmp_path / 'p.parquet'}", [(SIZE, SIZE)] * 9, 9),
    ):
        assert sizes_of_some(DataConfig(spec=spec)) == (sizes, count)
    assert len(sizes_of_some(DataConfig(), 10)[0]) == 11
