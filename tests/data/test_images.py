import pickle  # noqa: TID251 - how Ray sends objects to workers
from dataclasses import replace

import numpy as np
import pytest
import torch
from image_files import SIZE, encoded_images, error_of, load_both, load_test, write_folder
from PIL import Image

from nas.base.errors import DataError
from nas.data.images import DataInfo, ImageSet

INFO = DataInfo(class_names=("a", "b"), mean=(0.5, 0.0, 0.25), std=(0.5, 1.0, 0.25), flip_safe=True, hashes={})


# --- the image set ---


def test_image_set_normalises_with_the_moments_of_its_data():
    images = np.broadcast_to(np.array([0, 255], dtype=np.uint8).reshape(2, 1, 1, 1), (2, 3, 4, 4))
    chosen = ImageSet(images, np.array([0, 1]), INFO)
    assert chosen.normalized([1])[0, :, 0, 0].tolist() == [1.0, 1.0, 3.0]
    assert chosen.normalized(slice(0, 1))[0, :, 0, 0].tolist() == [-1.0, 0.0, -1.0]
    assert chosen.normalized(np.array([0, 1, 1])).dtype == torch.float32
    assert len(chosen) == 2


@pytest.mark.parametrize("seed", range(3))
def test_normalised_values_are_those_of_torch_bit_for_bit(seed):
    """Digests of trained weights hang on every bit of them."""
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(256, 3, 1, 1)
    mean, std = np.random.default_rng(seed).random((2, 3)).tolist()
    found = ImageSet(pixels, np.zeros(256, dtype=np.int64), replace(INFO, mean=mean, std=std))
    values = torch.from_numpy(pixels).float().div_(255)
    expected = values.sub_(torch.tensor(mean).view(1, 3, 1, 1)).div_(torch.tensor(std).view(1, 3, 1, 1))
    assert torch.equal(found.normalized(slice(None)), expected)


def test_parts_share_memory_and_what_is_read_only_stays_as_it_is():
    images, labels = np.full((4, 3, 2, 2), 9, dtype=np.uint8), np.arange(4)
    for array in (images, labels):
        array.setflags(write=False)
    whole = ImageSet(images, labels, INFO)
    assert np.shares_memory(whole.part(1, 3).images, images)
    assert whole.chosen(np.array([3, 0])).labels.tolist() == [3, 0]
    for numbers in (slice(0, 2), [0, 1], np.array([1])):
        whole.normalized(numbers)
    assert (images == 9).all()


def test_digest_sees_pixels_labels_and_shape():
    images, labels = np.zeros((2, 3, 4, 4), dtype=np.uint8), np.array([0, 1])
    changed = images.copy()
    changed[1, 2, 3, 3] = 1
    variants = [
        ImageSet(images, labels, INFO),
        ImageSet(changed, labels, INFO),
        ImageSet(images, labels[::-1], INFO),
        ImageSet(images.reshape(2, 3, 2, 8), labels, INFO),
    ]
    digests = [variant.digest for variant in variants]
    assert len(set(digests)) == 4
    assert all(len(digest) == 16 for digest in digests)
    assert ImageSet(images.copy(), labels.copy(), INFO).digest == digests[0]


# --- the test split ---


def test_pickled_images_carry_no_test_split():
    digits, _ = load_both("digits")
    packed = pickle.dumps(digits)
    assert len(packed) < (1151 + 287) * (3 * SIZE * SIZE + 8) + 3000
    assert b"TestSplit" not in packed
    copy = pickle.loads(packed)
    assert copy.train.digest == digits.train.digest
    assert (copy.info, copy.summary) == (digits.info, digits.summary)


def test_the_test_split_can_be_opened_again_and_again():
    _, test = load_both("digits")
    assert test.open().digest == test.open().digest


@pytest.mark.parametrize("own", [True, False], ids=["own", "carved"])
def test_a_damaged_test_image_is_found_before_anything_is_trained(tmp_path, own):
    write_folder(tmp_path / "train")
    images = write_folder(tmp_path / "test", per_class=2, seed=1) if own else tmp_path / "train"
    spec = f"folder:{tmp_path if own else images}"
    whole = load_test(spec)
    name, victim = next(
        (path.name, path)
        for path in sorted((images / "cat").iterdir())
        if np.asarray(Image.open(path)).transpose(2, 0, 1).tobytes() in {image.tobytes() for image in whole.images}
    )
    victim.write_bytes(victim.read_bytes()[:-30])  # its header is whole
    assert name in error_of(spec).message
    data, test = load_both(spec, skip_bad_images=True)
    assert "left out: 1 unreadable" in data.summary[1]
    if own:
        assert len(test.open()) == len(whole) - 1


def test_changed_test_images_are_refused(tmp_path):
    write_folder(tmp_path / "train")
    write_folder(tmp_path / "test", per_class=2, seed=1)
    _, test = load_both(f"folder:{tmp_path}")
    sorted((tmp_path / "test" / "cat").iterdir())[0].write_bytes(encoded_images(1, seed=9)[0])
    with pytest.raises(DataError, match="changed since the splits were made"):
        test.open()
