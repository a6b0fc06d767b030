"""A classifier in closed form."""

import pytest
import torch
from small_runs import digits, one_thread
from small_spaces import tiny_space

from nas.model.supernet import Supernet
from nas.training.operators.head import fit_head, ridge


def blobs(seed, count=300, width=12, classes=4, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(count) % classes
    return centres[labels] + 5 + spread * torch.randn(count, width, generator=generator), labels


def error_left_out(features, labels, penalty, i):
    """Of the regression without image i, the long way round."""
    keep = torch.arange(len(features)) != i
    x, y = features[keep].double(), torch.nn.functional.one_hot(labels[keep]).double()
    z = x - x.mean(dim=0)
    weight = torch.linalg.solve(z.T @ z + penalty * torch.eye(z.shape[1]), z.T @ (y - y.mean(dim=0)))
    return (features[i].double() - x.mean(dim=0)) @ weight + y.mean(dim=0)


def test_new_images_of_classes_that_are_apart_are_told_apart():
    weight, bias = ridge(*blobs(0), 4)
    features, labels = blobs(1)
    logits = features.double() @ weight.T + bias
    assert float((logits.argmax(dim=1) == labels).double().mean()) > 0.95
    assert float(torch.nn.functional.cross_entropy(logits, labels)) < 0.4


def test_logits_are_soft_where_classes_are_not_told_apart():
    features, labels = blobs(0, spread=20.0)
    weight, bias = ridge(features, labels, 4)
    unseen, truth = blobs(1, spread=20.0)
    logits = unseen.double() @ weight.T + bias
    assert float(torch.nn.functional.cross_entropy(logits, truth)) < 1.45  # ln 4 is 1.39


def test_the_penalty_is_that_of_least_error_on_images_left_out():
    features, labels = blobs(2, count=24, spread=4.0)
    weight, _ = ridge(features, labels, 4)
    size = float(torch.linalg.svdvals((features - features.mean(dim=0)).double()).square().mean())
    truth = torch.nn.functional.one_hot(labels).double()
    errors = {
        penalty: sum(float((error_left_out(features, labels, penalty, i) - truth[i]).square().sum()) for i in range(24))
        for penalty in (size * 10.0**n for n in range(-3, 4))
    }
    best = min(errors, key=errors.get)
    z = (features - features.mean(dim=0)).double()
    expected = torch.linalg.solve(z.T @ z + best * torch.eye(12), z.T @ (truth - truth.mean(dim=0))).T
    ratio = weight / expected
    assert torch.allclose(ratio, ratio.mean().expand_as(ratio), rtol=1e-6)


def test_a_random_network_has_a_classifier_that_knows_more_than_chance():
    supernet, images = Supernet(tiny_space().with_num_classes(10), seed=1).eval(), digits()
    with torch.no_grad(), one_thread():
        assert fit_head(supernet, images.train) == ["head.weight", "head.bias"]
        logits = supernet.dense()(images.search.normalized(slice(None)))
    right = float((logits.argmax(dim=1).numpy() == images.search.labels).mean())
    assert right > 0.5


@pytest.mark.parametrize("classes", [0, 1])
def test_without_classes_nothing_is_fitted(classes):
    supernet, images = Supernet(tiny_space().with_num_classes(classes)), digits().train
    names = ("all",) * classes
    assert fit_head(supernet, type(images)(images.images, images.labels, type(images.info)(
        class_names=names, mean=images.info.mean, std=images.info.std, flip_safe=False, hashes={}
    ))) == []  # fmt: skip
