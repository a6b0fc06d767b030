import numpy as np
import pytest
import torch
from small_runs import few_digits, one_thread, tiny_space
from torch.nn import functional

from nas.model.supernet import Supernet
from nas.settings.config import TrainConfig
from nas.training.distill import soft_cross_entropy
from nas.training.step import Step
from nas.training.world import World

NO_AIDS = {"static_guidance": 0.0}


@pytest.fixture(autouse=True)
def _single_threaded():
    with one_thread():
        yield


def architectures(space, count=2):
    rng = np.random.default_rng(0)
    return [space.largest(), space.smallest(), *(space.sample_stratified(rng) for _ in range(count))]


def batch(count=24):
    data = few_digits().train
    return data.normalized(slice(0, count)), torch.from_numpy(data.labels[:count].copy())


def gradients(supernet):
    return {name: p.grad.clone() for name, p in supernet.named_parameters() if p.grad is not None}


def after_step(chosen, teacher=None, progress=1.0, **recipe):
    supernet = Supernet(tiny_space())
    config = TrainConfig(**{"rule": "sandwich", **recipe})
    step = Step(supernet=supernet, config=config, precision="fp32", world=World(), teacher=teacher)
    losses = step.run(*batch(), chosen, progress)
    return losses, gradients(supernet)


def by_hand(chosen, loss_of):
    supernet = Supernet(tiny_space()).train()
    images, labels = batch()
    loss_of(supernet, images, labels, chosen).backward()
    return gradients(supernet)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=name)


def smoothed_loss(logits, labels):
    return functional.cross_entropy(logits, labels, label_smoothing=0.1)


def test_a_sandwich_is_labels_for_the_largest_on_all_images_and_its_answers_for_the_other():
    chosen = architectures(tiny_space(), count=0)

    def loss(supernet, images, labels, chosen):
        largest, smallest = (supernet(images, a) for a in chosen)
        return smoothed_loss(largest, labels) + soft_cross_entropy(smallest, largest, 1.0).mean()

    losses, found = after_step(chosen, **NO_AIDS)
    assert_same(found, by_hand(chosen, loss))
    assert len(losses) == len(chosen)


def test_students_that_share_the_batch_out_see_every_image_once():
    chosen = architectures(tiny_space(), count=1)

    def loss(supernet, images, labels, chosen):
        taught = supernet(images, chosen[0])
        halves = [
            soft_cross_entropy(supernet(images[i::2], a), taught[i::2], 1.0).mean() for i, a in enumerate(chosen[1:])
        ]
        return smoothed_loss(taught, labels) + sum(halves) / 2

    assert_same(after_step(chosen, **NO_AIDS)[1], by_hand(chosen, loss))


def test_a_single_path_learns_the_labels():
    chosen = architectures(tiny_space())[2:3]

    def loss(supernet, images, labels, chosen):
        return smoothed_loss(supernet(images, chosen[0]), labels)

    losses, found = after_step(chosen, rule="single_path", **NO_AIDS)
    assert_same(found, by_hand(chosen, loss))
    supernet = Supernet(tiny_space()).train()
    images, labels = batch()
    assert losses[0] == pytest.approx(smoothed_loss(supernet(images, chosen[0]), labels).item(), rel=1e-4)


def test_drop_path_acts_on_single_paths_and_of_a_sandwich_on_the_largest_alone():
    first, second, *_ = architectures(tiny_space())
    deep = tiny_space().decode({**tiny_space().encode(second), "depth": first.depth})

    def changed(rule, chosen):
        torch.manual_seed(0)
        dropped, plain = (after_step(chosen, rule=rule, drop_path=rate, **NO_AIDS)[0] for rate in (0.5, 0.0))
        return [abs(one - other) > 1e-4 for one, other in zip(dropped, plain, strict=True)]

    assert changed("single_path", [first, deep]) == [True, True]
    assert changed("sandwich", [first, deep]) == [True, False]


def test_an_outside_teacher_teaches_the_largest_beside_the_labels_and_the_others_alone():
    chosen = architectures(tiny_space(), count=0)
    answers = torch.randn(24, 10, generator=torch.Generator().manual_seed(0))

    def loss(supernet, images, labels, chosen):
        largest, smallest = (supernet(images, a) for a in chosen)
        taught = soft_cross_entropy(largest, answers, 1.0).mean()
        return (smoothed_loss(largest, labels) + taught) / 2 + soft_cross_entropy(smallest, answers, 1.0).mean()

    assert_same(after_step(chosen, teacher=lambda _: answers, **NO_AIDS)[1], by_hand(chosen, loss))


@pytest.mark.parametrize("rule", ["single_path", "sandwich"])
def test_class_weights_make_an_image_count_as_often_as_its_weight_says(rule):
    """Weights of 0 and 2 on halves of a batch are a batch of the second half; weights of 1 change no bit."""
    chosen = architectures(tiny_space(), count=1)[:1] if rule == "single_path" else architectures(tiny_space(), 0)
    images, labels = batch()
    weights = torch.tensor([2.0] * 5 + [0.0] * 5)
    kept = labels < 5

    def gradients_of(images, labels, class_weights):
        supernet = Supernet(tiny_space())
        config = TrainConfig(rule=rule, **NO_AIDS)
        step = Step(supernet=supernet, config=config, precision="fp32", world=World(), class_weights=class_weights)
        step.run(images, labels, chosen, 1.0)
        return gradients(supernet)

    plain = gradients_of(images, labels, None)
    weighted = gradients_of(images, labels, weights)
    some = gradients_of(images[kept], labels[kept], None)
    scale = 2 * int(kept.sum()) / len(labels)
    for name, value in gradients_of(images, labels, torch.ones(10)).items():
        assert torch.equal(value, plain[name])
    if rule == "single_path":
        for name, value in some.items():
            torch.testing.assert_close(weighted[name], scale * value, rtol=1e-3, atol=1e-6)
    else:
        assert not torch.allclose(weighted["head.weight"], plain["head.weight"])


def test_of_a_mixture_the_shares_of_its_classes_count():
    weights = torch.tensor([3.0, 1.0, 0.5])
    step = Step(
        supernet=Supernet(tiny_space()), config=TrainConfig(), precision="fp32", world=World(), class_weights=weights
    )
    shares = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    assert step._weighted(torch.ones(2), shares).tolist() == [2.0, 0.5]
    assert step._weighted(torch.ones(2), torch.tensor([0, 1])).tolist() == [3.0, 1.0]
