from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from nas.base.errors import EvaluationError
from nas.data.images import DataInfo, ImageSet
from nas.evaluation.accuracy import (
    balanced_interval,
    balanced_percent,
    count_correct,
    paired_loss,
    top1_percent,
    wilson_interval,
)

RAW = DataInfo(class_names=(), mean=(0.0,) * 3, std=(1.0,) * 3, flip_safe=True, hashes={})
FIXED = {"device": torch.device("cpu"), "precision": "fp32"}


class Reader(nn.Module):
    """Says the class that is written in the first pixel; for pixel 255, nothing finite."""

    def forward(self, images):
        values = (255 * images[:, 0, 0, 0]).round()
        logits = nn.functional.one_hot(values.long() % 10, 10).float()
        return torch.where(values.view(-1, 1) == 255, torch.nan, logits)


def images_saying(*values, labels):
    pixels = np.array(values, dtype=np.uint8).reshape(-1, 1, 1, 1).repeat(3, axis=1)
    return ImageSet(pixels.repeat(2, axis=2).repeat(2, axis=3), np.array(labels), RAW)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 100])
def test_every_image_is_counted_once_whatever_the_batch(batch_size):
    images = images_saying(0, 1, 2, 3, 4, labels=[0, 9, 2, 3, 0])
    correct = count_correct(Reader(), images, batch_size=batch_size, **FIXED)
    assert correct.tolist() == [True, False, True, True, False]
    assert top1_percent(correct) == 60.0


def test_a_logit_that_is_not_finite_is_an_error_that_names_the_images():
    images = images_saying(0, 1, 255, 3, labels=[0, 1, 2, 3])
    with pytest.raises(EvaluationError, match="logits of images 2 to 3 are not finite"):
        count_correct(Reader(), images, batch_size=2, **FIXED)


def test_bf16_computes_in_bf16():
    seen = []

    class Looking(nn.Linear):
        def forward(self, images):
            logits = super().forward(images[:, :, 0, 0])
            seen.append(logits.dtype)
            return logits

    images = images_saying(0, labels=[0])
    for precision in ("bf16", "fp32"):
        count_correct(Looking(3, 10), images, batch_size=1, device=torch.device("cpu"), precision=precision)
    assert seen == [torch.bfloat16, torch.float32]


def test_wilson_interval_is_the_formula():
    # z = 1.95996: centre (p + z2/2n) / (1 + z2/n), half-width z sqrt(p(1-p)/n + z2/4n2) / (1 + z2/n)
    low, high = wilson_interval(torch.tensor([True] * 8 + [False] * 2))
    assert (low, high) == pytest.approx((49.0162, 94.3318), abs=1e-3)


@pytest.mark.parametrize(("right", "number"), [(0, 5), (5, 5), (1, 2), (99, 100), (700, 1000)])
def test_wilson_interval_holds_the_value_and_stays_within_the_scale(right, number):
    correct = torch.arange(number) < right
    low, high = wilson_interval(correct)
    assert -1e-9 <= low <= top1_percent(correct) + 1e-9
    assert top1_percent(correct) - 1e-9 <= high <= 100 + 1e-9
    assert low < high


def test_more_images_make_the_interval_narrower():
    low, high = wilson_interval(torch.arange(1000) < 800)
    wide_low, wide_high = wilson_interval(torch.arange(10) < 8)
    assert high - low < wide_high - wide_low


@pytest.mark.parametrize("seed", range(3))
def test_balanced_accuracy_is_the_mean_over_the_classes_that_have_images(seed):
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 2, 5], size=200, p=[0.9, 0.06, 0.03, 0.01])
    correct = rng.random(200) < 0.8 - 0.1 * labels
    recalls = [Fraction(int(correct[labels == c].sum()), int((labels == c).sum())) for c in np.unique(labels)]
    assert balanced_percent(correct, labels) == pytest.approx(float(100 * sum(recalls) / len(recalls)), abs=1e-12)
    low, high = balanced_interval(correct, labels)
    assert 0 <= low < balanced_percent(correct, labels) < high <= 100


def test_who_says_the_large_class_always_has_half_of_two_and_balanced_images_have_their_top1():
    labels = np.array([0] * 99 + [1])
    assert top1_percent(labels == 0) == 99
    assert balanced_percent(labels == 0, labels) == 50
    labels = np.arange(40) % 4
    correct = np.random.default_rng(0).random(40) < 0.7
    assert balanced_percent(correct, labels) == pytest.approx(top1_percent(correct))


def test_the_interval_of_balanced_accuracy_holds_the_truth_and_is_wide_where_a_class_is_small():
    rng, truth = np.random.default_rng(0), np.array([0.95, 0.6, 0.8])
    labels, held = np.repeat([0, 1, 2], [300, 20, 40]), 0
    for _ in range(400):
        low, high = balanced_interval(rng.random(len(labels)) < truth[labels], labels)
        held += low <= 100 * truth.mean() <= high
    assert 0.92 <= held / 400 <= 0.99
    few, many = (balanced_interval(np.ones(len(y), bool), y) for y in (np.repeat([0, 1], [99, 1]), np.arange(100) % 2))
    assert few[0] < 65 < 94 < many[0]
    assert wilson_interval(np.array([True, False] * 50)) == pytest.approx(
        balanced_interval(np.array([True, False] * 50), np.zeros(100, int))
    )


def test_what_is_lost_is_known_better_where_two_models_seldom_disagree():
    before = np.arange(1000) < 800
    after = before.copy()
    after[:12], after[990:992] = False, True
    lost, (low, high) = paired_loss(before, after)
    assert lost == pytest.approx(1.0)
    assert low < lost < high
    unpaired = wilson_interval(before)
    assert high - low < 0.4 * (unpaired[1] - unpaired[0])
    assert paired_loss(before, before)[0] == 0
    assert paired_loss(before, before)[1] == pytest.approx((-0.2, 0.2), abs=0.05)
    assert paired_loss(after, before)[1] == pytest.approx((-high, -low))


@pytest.mark.parametrize(("lost", "won"), [(0.02, 0.01), (0.002, 0.002), (0.1, 0.02)])
def test_the_interval_of_what_is_lost_covers_as_often_as_it_says(lost, won):
    rng, covered = np.random.default_rng(0), 0
    for _ in range(2000):
        kind = rng.random(400)
        before, after = kind < 0.8, (kind >= lost) & (kind < 0.8 + won)
        low, high = paired_loss(before, after)[1]
        covered += low <= 100 * (lost - won) <= high
    assert covered / 2000 >= 0.93
