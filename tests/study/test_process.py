"""The Gaussian process behind the default sampler."""

import numpy as np
import pytest
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from nas.study.process import GaussianProcess


def rows(count, seed=0):
    """Three numbers, and a choice among three in as many columns."""
    rng = np.random.default_rng(seed)
    return np.hstack([rng.integers(0, 4, (count, 3)), np.eye(3)[rng.integers(0, 3, count)]]).astype(float)


GENES, LINE = (0, 1, 2, 3, 3, 3), 0


def function(x):
    return 60 + 5 * np.sin(x[:, 0]) + 3 * x[:, 4]


def fitted(count=60, noise=0.0):
    x = rows(count)
    values = function(x) + noise * np.random.default_rng(1).normal(size=count)
    return GaussianProcess(x, GENES, values, np.zeros(count), LINE)


def test_it_ranks_what_it_has_not_seen_and_knows_how_sure_it_is():
    process, others = fitted(), rows(200, seed=5)
    mean, deviation = process.predict(others)
    assert np.sqrt(np.mean((mean - function(others)) ** 2)) < 0.3
    assert (np.abs(mean - function(others)) < 4 * deviation + 0.05).mean() > 0.95


def test_genes_without_effect_get_long_lengths():
    lengths = 1 / fitted()._factors[:3]
    assert lengths[1] > 3 * lengths[0]
    assert lengths[2] > 3 * lengths[0]


def test_it_predicts_what_the_kernels_of_scikit_learn_say():
    process, x, others = fitted(noise=0.5), rows(60), rows(20, seed=3)
    ours, theirs = (one[:, process._columns] * process._factors for one in (x, others))
    kernel = ConstantKernel(process._variance) * Matern(1.0, nu=2.5)
    along = [process._steepness**0.5 * (one[:, LINE] - x[:, LINE].mean()) / x[:, LINE].std() for one in (x, others)]
    known = kernel(ours) + np.outer(along[0], along[0]) + (process._noise + 1e-6) * np.eye(len(x))
    between = kernel(theirs, ours) + np.outer(along[1], along[0])
    mean, deviation = process.predict(others)
    np.testing.assert_allclose(
        mean, process._mean + process._scale * between @ np.linalg.solve(known, process._targets), rtol=1e-6
    )
    left = np.diag(kernel(theirs)) + along[1] ** 2 - np.sum(between * np.linalg.solve(known, between.T).T, axis=1)
    np.testing.assert_allclose(deviation, process._scale * np.sqrt(left), rtol=1e-3)


def test_beyond_what_was_measured_it_goes_on_along_the_line():
    x = np.linspace(0, 1, 12)[:, None]
    ahead = np.array([[1.5]])
    process = GaussianProcess(x, [0], 50 + 20 * x[:, 0], np.zeros(12), line=0)
    (mean,), (deviation,) = process.predict(ahead)
    assert abs(mean - 80) < 1
    assert deviation > process.predict(x)[1].max()


def test_the_line_is_as_steep_as_the_values_make_likely():
    x = np.linspace(0, 1, 20)[:, None]
    straight, wavy = (GaussianProcess(x, [0], f(x[:, 0]), np.zeros(20), line=0) for f in (lambda v: 9 * v, wave))
    assert straight._steepness > 1.4 * wavy._steepness


def wave(x):
    return np.sin(12 * x)


def test_what_is_believed_makes_it_surer_nearby_and_changes_no_expectation():
    process, others = fitted(count=12), rows(30, seed=7)
    mean, before = process.predict(others)
    same, after = process.predict(others, others[:1])
    assert (same == mean).all()
    assert (after <= before + 1e-9).all()
    assert after[0] < 0.8 * before[0]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_equal_values_are_enough(count):
    mean, deviation = GaussianProcess(rows(count), GENES, np.full(count, 7.0), np.zeros(count), LINE).predict(
        rows(5, seed=2)
    )
    np.testing.assert_allclose(mean, 7.0)
    assert np.isfinite(deviation).all()


def test_what_was_measured_with_a_great_error_counts_for_less():
    rows, values = np.linspace(0, 1, 8)[:, None], np.array([0.0, 1.0, 2.0, 9.0, 4.0, 5.0, 6.0, 7.0])
    errors = np.zeros(8)
    surely = GaussianProcess(rows, [0], values, errors, line=0).predict(rows[3:4])[0][0]
    errors[3] = 50.0
    hardly = GaussianProcess(rows, [0], values, errors, line=0).predict(rows[3:4])[0][0]
    assert abs(hardly - 3.0) < 0.5 < abs(surely - 3.0)
