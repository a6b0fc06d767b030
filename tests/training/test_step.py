import numpy as np
import pytest
import torch
from small_runs import few_digits, one_thread, tiny_space
from torch.nn import functional

from nas.model.supernet import Supernet
from nas.settings.config import TrainConfig
from nas.space.space import SearchSpace
from nas.training.distill import divergences
from nas.training.step import Step
from nas.training.world import World

WHOLE = {"images": "whole", "static_guidance": 0.0, "linear_aux": False}


@pytest.fixture(autouse=True)
def _single_threaded():
    with one_thread():
        yield


def architectures(space, count=2):
    rng = np.random.default_rng(0)
    return [space.largest(), space.smallest(), *(space.sample_stratified(rng) for _ in range(count))]


def batch(count=24):
    data = few_digits().train
    return data.normalized(slice(0, count)), data.labels[:count]


def gradients(supernet):
    return {name: p.grad.clone() for name, p in supernet.named_parameters() if p.grad is not None}


def after_step(chosen, teacher=None, **recipe):
    supernet = Supernet(tiny_space())
    config = TrainConfig(**{"rule": "sandwich", **recipe})
    step = Step(supernet=supernet, config=config, precision="fp32", world=World(), teacher=teacher)
    losses = step.run(*batch(), chosen, 1.0)
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


@pytest.mark.parametrize("distill", ["soft", "hard", "alpha"])
def test_a_whole_batch_sandwich_is_labels_for_the_largest_and_the_mean_divergence_of_the_others(distill):
    chosen = architectures(tiny_space())

    def loss(supernet, images, labels, chosen):
        taught = supernet(images, chosen[0])
        students = [divergences(distill, supernet(images, a), taught, 1.0).mean() for a in chosen[1:]]
        return smoothed_loss(taught, labels) + sum(students) / len(students)

    losses, found = after_step(chosen, distill=distill, **WHOLE)
    assert_same(found, by_hand(chosen, loss))
    assert len(losses) == len(chosen)


def test_students_that_share_the_batch_out_see_every_image_once():
    chosen = architectures(tiny_space(), count=1)

    def loss(supernet, images, labels, chosen):
        taught = supernet(images, chosen[0])
        halves = [
            divergences("soft", supernet(images[i::2], a), taught[i::2], 1.0).mean()
            for i, a in enumerate(chosen[1:])
        ]
        return smoothed_loss(taught, labels) + sum(halves) / 2

    assert_same(after_step(chosen, **{**WHOLE, "images": "split"})[1], by_hand(chosen, loss))


def test_a_single_path_learns_the_labels():
    chosen = architectures(tiny_space())[2:3]

    def loss(supernet, images, labels, chosen):
        return smoothed_loss(supernet(images, chosen[0]), labels)

    losses, found = after_step(chosen, rule="single_path", **WHOLE)
    assert_same(found, by_hand(chosen, loss))
    supernet = Supernet(tiny_space()).train()
    images, labels = batch()
    assert losses[0] == pytest.approx(smoothed_loss(supernet(images, chosen[0]), labels).item(), rel=1e-4)


@pytest.mark.parametrize("images", ["split", "whole"])
def test_drop_path_acts_on_single_paths_and_of_a_sandwich_on_the_largest_alone(images):
    recipe = {**WHOLE, "images": images}
    first, second, *_ = architectures(tiny_space())
    deep = tiny_space().decode({**tiny_space().encode(second), "depth": first.depth})

    def changed(rule, chosen):
        torch.manual_seed(0)
        dropped, plain = (after_step(chosen, rule=rule, drop_path=rate, **recipe)[0] for rate in (0.5, 0.0))
        return [abs(one - other) > 1e-4 for one, other in zip(dropped, plain, strict=True)]

    assert changed("single_path", [first, deep]) == [True, True]
    assert changed("sandwich", [first, deep]) == [True, False]


def test_an_outside_teacher_teaches_the_largest_beside_the_labels_and_the_others_alone():
    chosen = architectures(tiny_space(), count=0)
    answers = torch.randn(24, 10, generator=torch.Generator().manual_seed(0))

    def loss(supernet, images, labels, chosen):
        largest, smallest = (supernet(images, a) for a in chosen)
        taught = divergences("soft", largest, answers, 1.0).mean()
        return (smoothed_loss(largest, labels) + taught) / 2 + divergences(
            "soft", smallest, answers, 1.0
        ).mean()

    assert_same(after_step(chosen, teacher=lambda _: answers, **WHOLE)[1], by_hand(chosen, loss))


def test_without_conflict_gradients_add_up_and_with_it_the_opposing_part_is_gone():
    chosen = architectures(tiny_space())
    supernet = Supernet(tiny_space()).train()
    images, labels = batch()
    taught = supernet(images, chosen[0])
    smoothed_loss(taught, labels).backward()
    led = gradients(supernet)
    supernet.zero_grad(set_to_none=True)
    students = [divergences("soft", supernet(images, a), taught, 1.0).mean() for a in chosen[1:]]
    (sum(students) / len(students)).backward()
    others = gradients(supernet)
    _, found = after_step(chosen, conflict_free=True, **WHOLE)
    conflicts = 0
    for name, value in found.items():
        if name not in led or name not in others:
            expected = led.get(name, others.get(name))
        else:
            product = (led[name] * others[name]).sum()
            part = (value - others[name]) * others[name]
            conflicts += int(product < 0)
            if product < 0:
                size = float((led[name] * others[name]).abs().sum())
                assert abs(float(part.sum())) <= 1e-3 * size, name
                continue
            expected = led[name] + others[name]
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6, msg=name)
    assert conflicts, "nothing opposed: the test shows nothing"


def test_what_architectures_have_in_common_is_computed_once_and_equal():
    space = SearchSpace.from_yaml("search_spaces/digits.yaml").with_num_classes(10)
    supernet = Supernet(space).eval()
    rng = np.random.default_rng(1)
    chosen = [space.largest()]
    for _ in range(6):
        chosen.append(space.mutate(chosen[-1], rng))
    chosen += [space.sample(rng) for _ in range(6)]
    images = batch(4)[0]
    with torch.no_grad():
        together = supernet.forward_many(images, chosen)
        alone = [supernet(images, architecture) for architecture in chosen]
    assert all(torch.equal(one, other) for one, other in zip(together, alone, strict=True))


def test_shared_layers_run_once():
    space = tiny_space()
    supernet = Supernet(space)
    largest = space.largest()
    runs = []
    module = supernet._skeleton(largest, 0.0, False).module
    module.blocks[0].register_forward_hook(lambda *_: runs.append(1))
    supernet.forward_many(batch(2)[0], [largest, largest, largest])
    assert len(runs) == 1
