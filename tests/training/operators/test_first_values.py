"""Operators start at the scale of what they replace, with queries that look at different places."""

import math

import pytest
import torch
from small_runs import digits, one_thread
from small_spaces import tiny_space
from warm_space import SPACE

from nas.model.layers.glad import average_tokens
from nas.model.supernet import Supernet
from nas.settings.config import TrainConfig
from nas.space.space import parse_space
from nas.training.operators.first_values import GATHERED, SHARPNESS, fit_operators
from nas.training.trainer import SupernetTrainer

LAYERS = (0, 1)


def space():
    return parse_space(SPACE, "warm.yaml").with_num_classes(10)


def begun(directory, images=None) -> SupernetTrainer:
    config = TrainConfig(epochs=1, warmup_epochs=0)
    images = digits().train if images is None else images
    return SupernetTrainer(
        Supernet(space()), images, config, seed=0, device=torch.device("cpu"), precision="fp32", directory=directory
    )


@pytest.fixture(scope="module")
def supernet(tmp_path_factory):
    """As a training from random weights begins with it."""
    with one_thread():
        started = begun(tmp_path_factory.mktemp("begun"))
        assert started.begin() == 0
    return started.supernet


def changed(**genes):
    encoded = space().encode(space().largest())
    return space().decode({**encoded, **{name.replace("__", "."): value for name, value in genes.items()}})


def images(count=32):
    return digits().search.normalized(slice(0, count))


def head_outputs(model, number, given):
    """What the heads of a layer's attention give to their projection: [B, T, H, d]."""
    seen = []
    model.blocks[number].attn.proj.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(given)
    return seen[0].unflatten(2, (-1, 8))


@pytest.mark.parametrize("number", LAYERS)
def test_fitted_linear_attention_is_as_loud_as_the_dynamic_one_under_the_same_projection(number):
    supernet = Supernet(space())
    fit_operators(supernet, [images(64)], gains=True)
    plain, linear = space().largest(), changed(**{f"layers__0{number}__attention": "linear"})
    assert plain != linear
    loud, other = (
        head_outputs(supernet.extract(a), number, images()).norm(dim=3).mean(dim=(0, 1)) for a in (linear, plain)
    )
    assert ((loud / other).log().abs() < math.log(1.5)).all()


def test_random_weights_begin_with_gains_of_one(supernet):
    gains = [value for name, value in supernet.named_parameters() if name.endswith("linear_gain")]
    assert gains
    assert all((gain == 1).all() for gain in gains)


def weights_of_queries(reducer, x):
    z = reducer.norm(x)[:, 1:]
    return (reducer.queries * reducer.scale @ z.mT).softmax(dim=-1), z


@pytest.mark.parametrize("number", LAYERS)
def test_queries_look_at_different_and_near_places(supernet, number):
    reduced = {f"layers__0{i}__num_tokens": 9 for i in range(number, 2)}
    model = supernet.extract(changed(**reduced, **{f"layers__0{number}__reducer": "glad"}))
    seen = []
    model.blocks[number].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(images())
        reducer = model.blocks[number].reducer
        weights, z = weights_of_queries(reducer, seen[0])
    entropy = torch.special.entr(weights).sum(dim=2).mean() / math.log(16)
    assert entropy == pytest.approx(SHARPNESS, abs=0.05)
    rows = torch.nn.functional.normalize(weights, dim=2)
    alike = (rows @ rows.mT).mean(dim=0).fill_diagonal_(0).sum() / (9 * 8)
    assert alike < 0.6
    inside = average_tokens(torch.eye(16)[None], 9)[0] > 0
    assert (weights * inside).sum(dim=2).mean() > 1.3 * inside.sum(dim=1).float().mean() / 16
    share = (reducer.gamma.detach() * (weights @ z)).norm() / average_tokens(seen[0][:, 1:], 9).norm()
    assert share == pytest.approx(GATHERED, rel=0.2)


def test_first_values_are_those_of_the_first_checkpoint_and_the_same_again(supernet, tmp_path):
    with one_thread():
        first = begun(tmp_path)
        first.begin()
        resumed = begun(tmp_path)
        assert resumed.resume() == 0
    for name, value in supernet.state_dict().items():
        assert torch.equal(value, resumed.supernet.state_dict()[name]), name
        assert torch.equal(value, resumed.ema.module.state_dict()[name]), name


def test_only_operators_are_fitted_and_all_of_a_kind():
    fresh = Supernet(space())
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    fitted = fit_operators(fresh, [images(8)], gains=True)
    assert {name.rpartition(".")[2] for name in fitted} == {"linear_gain", "queries_9", "gamma"}
    moved = {name for name, value in fresh.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == set(fitted)


def test_a_space_without_them_is_not_looked_at():
    def unseen():
        raise AssertionError("no images are needed")
        yield

    assert fit_operators(Supernet(tiny_space()), unseen(), gains=True) == []


def test_images_that_are_all_alike_give_finite_values():
    alike = images(1).expand(4, -1, -1, -1)
    for given in (alike, torch.zeros_like(alike)):
        fresh = Supernet(space())
        fit_operators(fresh, [given], gains=True)
        assert all(torch.isfinite(value).all() for value in fresh.state_dict().values())


def test_the_optimiser_does_not_decay_what_was_fitted(tmp_path):
    training = begun(tmp_path)
    undecayed = {
        id(p) for group in training.optimizer.param_groups if not group["weight_decay"] for p in group["params"]
    }
    names = fit_operators(training.supernet, [images(8)], gains=True)
    assert all(id(training.supernet.get_parameter(name)) in undecayed for name in names)
