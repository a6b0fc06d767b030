"""Reordering changes nothing for the whole network, and puts first what matters most."""

from itertools import permutations

import pytest
import torch
from factories import backbone
from plain_vits import HEAD_DIM as DIM
from plain_vits import images, vit_weights
from small_spaces import space

from nas.arch.architecture import Architecture, LayerChoice
from nas.initial import ordering
from nas.initial.ordering import elimination_order, order_by_importance, pair_heads
from nas.initial.pretrained import plain_subnet
from nas.model.cuts import RIDGE
from nas.model.supernet import Supernet
from nas.space.domain import LayerDomain
from nas.training.operators.calibration import calibrate


def logits(weights, fixed=None) -> torch.Tensor:
    with torch.no_grad():
        return plain_subnet(weights, fixed or backbone())(images())


def calibrated(weights, fixed=None):
    return calibrate(plain_subnet(weights, fixed or backbone()), [images()])


def subnet_logits(weights, **choice) -> torch.Tensor:
    """Logits of the subnet that takes the first heads and neurons of a supernet with these weights."""
    fixed = {"num_tokens": 16, "num_heads": 4, "mlp_ratio": 2.0, **choice}
    wide = LayerDomain(
        num_tokens=(16,),
        num_heads=tuple(sorted({4, fixed["num_heads"]})),
        mlp_ratio=tuple(sorted({2.0, fixed["mlp_ratio"]})),
        hallucination_ratio=tuple(sorted({0.0, choice.get("hallucination_ratio", 0.0)})),
    )
    supernet = Supernet(space(wide, embed_dim=(4 * DIM,), depth=(2,)))
    supernet.load_timm(weights)
    architecture = Architecture(embed_dim=4 * DIM, layers=(LayerChoice(**fixed),) * 2)
    with torch.no_grad():
        return supernet.eval()(images(), architecture)


@pytest.mark.parametrize("class_token", [True, False], ids=["class_token", "mean_pooled"])
@pytest.mark.parametrize("how", ["importance", "importance_fitted", "importance_and_pairs", "pairs"])
def test_the_whole_network_stays_the_same_function(class_token, how):
    weights, fixed = vit_weights(class_token=class_token), backbone(class_token=class_token)
    calibration = calibrated(weights, fixed)
    ordered = {
        "importance": lambda: order_by_importance(weights, DIM, calibration, fitted=False),
        "importance_fitted": lambda: order_by_importance(weights, DIM, calibration, fitted=True),
        "importance_and_pairs": lambda: order_by_importance(weights, DIM, calibration, fitted=True, num_real=2),
        "pairs": lambda: pair_heads(weights, DIM, calibration, num_real=2),
    }[how]()
    assert not all(torch.equal(ordered[name], weights[name]) for name in weights)
    assert {name: value.shape for name, value in ordered.items()} == {
        name: value.shape for name, value in weights.items()
    }
    assert torch.allclose(logits(ordered, fixed), logits(weights, fixed), atol=1e-5, rtol=0)


@pytest.mark.parametrize("fitted", [False, True])
def test_first_heads_and_neurons_are_the_whole_network_where_the_others_add_nothing(fitted):
    weights = vit_weights()
    for i in range(2):
        for head in (0, 2):
            weights[f"blocks.{i}.attn.proj.weight"][:, head * DIM : (head + 1) * DIM] = 0
        weights[f"blocks.{i}.mlp.fc2.weight"][:, ::2] = 0
    ordered = order_by_importance(weights, DIM, calibrated(weights), fitted=fitted)
    whole, first = logits(weights), {"num_heads": 2, "mlp_ratio": 1.0}
    assert torch.allclose(subnet_logits(ordered, **first), whole, atol=1e-5, rtol=0)
    assert not torch.allclose(subnet_logits(weights, **first), whole, atol=1e-2)


def test_where_nothing_is_fitted_heads_and_neurons_are_in_the_order_of_their_sizes():
    weights = order_by_importance(vit_weights(), DIM, calibrated(vit_weights()), fitted=False)
    for i, layer in enumerate(calibrated(weights).layers):
        neurons = layer.second_moment.diagonal().sqrt() * weights[f"blocks.{i}.mlp.fc2.weight"].norm(dim=0)
        for importance in (layer.output_norm, neurons):
            assert (importance.diff() <= 1e-6).all()


def error_without(weight, moment, gone) -> float:
    """Mean square error of a matrix's outputs when least squares fit the other inputs to stand in for these."""
    kept = [i for i in range(len(moment)) if i not in set(gone)]
    read = weight @ moment[:, kept]
    outputs = weight @ moment @ weight.T
    return float(outputs.trace() - (read @ torch.linalg.solve(moment[kept][:, kept], read.T)).trace())


@pytest.mark.parametrize("size", [1, 4])
def test_what_goes_first_is_what_the_others_replace_best(size):
    generator = torch.Generator().manual_seed(size)
    inputs, weight = (torch.randn(n, 12, generator=generator).double() for n in (40, 5))
    inputs[:, 4:8] += 2 * inputs[:, :4]  # the scale of an input says little where another is like it
    moment = inputs.T @ inputs / 40
    order = elimination_order(weight, moment, size).tolist()
    assert sorted(order) == list(range(12 // size))
    gone: list[int] = []
    while order:
        last = order.pop()
        errors = {
            one: error_without(weight, moment, [*gone, *range(one * size, (one + 1) * size)]) for one in (*order, last)
        }
        assert errors[last] <= min(errors.values()) + 1e-2
        gone += range(last * size, (last + 1) * size)


def test_many_neurons_go_at_once_and_their_order_is_hardly_worse(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(400, 24, generator=generator).relu().repeat(1, 8)  # every neuron is there eight times, nearly
    inputs = (inputs * (1 + torch.rand(192, generator=generator)) + torch.rand(400, 192, generator=generator)).double()
    weight = torch.randn(24, 192, generator=generator).double()
    moment = inputs.T @ inputs / 400
    together = elimination_order(weight, moment).tolist()
    monkeypatch.setattr(ordering, "STEPS", 192)
    singly = elimination_order(weight, moment).tolist()
    by_size = (moment.diagonal().sqrt() * weight.norm(dim=0)).argsort(descending=True).tolist()
    at_once, one_by_one, sizes = (error_without(weight, moment, order[48:]) for order in (together, singly, by_size))
    assert at_once < 1.05 * one_by_one < 0.8 * sizes


def test_an_order_is_of_the_error_in_what_the_layer_adds_to_the_stream():
    weights = vit_weights()
    ordered = order_by_importance(weights, DIM, calibrated(weights), fitted=True)
    for i, layer in enumerate(calibrated(ordered).layers):
        proj = ordered[f"blocks.{i}.attn.proj.weight"].double()  # its columns have no mean behind a rotation
        errors = [error_without(proj, layer.gathered_moment, range(h * DIM, (h + 1) * DIM)) for h in range(4)]
        assert errors[-1] == pytest.approx(min(errors), rel=1e-2)
        fc2 = ordered[f"blocks.{i}.mlp.fc2.weight"].double()
        size = len(layer.second_moment)
        damped = layer.second_moment + RIDGE * layer.second_moment.diagonal().mean() * torch.eye(size)
        errors = [error_without(fc2, damped, [neuron]) for neuron in range(size)]
        assert errors[-1] == pytest.approx(min(errors), rel=1e-2)


@pytest.mark.parametrize("fitted", [False, True])
def test_a_neuron_that_images_never_excite_is_last_whatever_its_weights(fitted):
    weights = vit_weights()
    weights["blocks.0.mlp.fc1.weight"][0] = 0.01
    weights["blocks.0.mlp.fc1.bias"][0] = -20.0  # GELU gives 0
    weights["blocks.0.mlp.fc2.weight"][:, 0] = 9.0
    biases = order_by_importance(weights, DIM, calibrated(weights), fitted=fitted)["blocks.0.mlp.fc1.bias"]
    assert biases.argmin() == len(biases) - 1


def test_convolutions_move_with_their_neurons():
    fixed, weights = backbone(), vit_weights()
    generator = torch.Generator().manual_seed(2)
    for i in range(2):
        weights[f"blocks.{i}.mlp.dwconv.weight"] = torch.randn(64, 1, 3, 3, generator=generator)
        weights[f"blocks.{i}.mlp.dwconv.bias"] = torch.randn(64, generator=generator)
    ordered = order_by_importance(weights, DIM, calibrated(weights, fixed), fitted=True)
    assert not torch.equal(ordered["blocks.0.mlp.dwconv.bias"], weights["blocks.0.mlp.dwconv.bias"])
    assert torch.allclose(logits(ordered, fixed), logits(weights, fixed), atol=1e-5, rtol=0)
    for layer in calibrated(ordered, fixed).layers:
        assert layer.second_moment.shape == (64, 64)


def alike(weights, groups) -> dict[str, torch.Tensor]:
    """Heads of a group get the queries and keys of its first head in every layer, so equal maps."""
    for i in range(2):
        for kind in ("weight", "bias"):
            q, k, _ = weights[f"blocks.{i}.attn.qkv.{kind}"].unflatten(0, (3, -1, DIM))
            for first, *others in groups:
                for other in others:
                    q[other], k[other] = q[first].clone(), k[first].clone()
    return weights


@pytest.mark.parametrize(
    ("groups", "num_real"), [([(0, 1), (2, 3)], 2), ([(1, 2)], 3), ([(0, 1, 2, 3)], 1), ([(0, 3)], 3)]
)
def test_paired_heads_with_equal_maps_can_be_hallucinated_without_loss(groups, num_real):
    weights = alike(vit_weights(), groups)
    whole, ratio = logits(weights), {"hallucination_ratio": (4 - num_real) / 4}
    choice = {**ratio, "hallucination": "copy"}
    calibration = calibrated(weights)
    paired = pair_heads(weights, DIM, calibration, num_real)
    ordered = order_by_importance(weights, DIM, calibration, fitted=True, num_real=num_real)
    for reordered in (paired, ordered):
        assert torch.allclose(subnet_logits(reordered, **choice), whole, atol=1e-4, rtol=0)


@pytest.mark.parametrize("num_real", [2, 3])
def test_heads_are_paired_as_the_sum_of_the_errors_is_least(num_real):
    weights = vit_weights(seed=3)
    paired = pair_heads(weights, DIM, calibrated(weights), num_real)
    for before, after in zip(calibrated(weights).layers, calibrated(paired).layers, strict=True):

        def lost(error, order, real=num_real):
            return sum(float(error[order[j % real], order[real + j]]) for j in range(4 - real))

        least = min(lost(before.copy_error, order) for order in permutations(range(4)))
        assert lost(after.copy_error, range(4)) == pytest.approx(least, rel=1e-4)
        standing_in = min(num_real, 4 - num_real)
        for group in (after.output_norm[:standing_in], after.output_norm[standing_in:num_real]):
            assert (group.diff() <= 1e-6).all()


@pytest.mark.parametrize(("num_heads", "num_real"), [(5, 2), (7, 3), (8, 2), (8, 3), (6, 1), (5, 5), (6, 4)])
def test_any_number_of_real_heads_will_do(num_heads, num_real):
    weights = vit_weights(num_heads)
    paired = pair_heads(weights, DIM, calibrated(weights), num_real)
    assert torch.allclose(logits(paired), logits(weights), atol=1e-5, rtol=0)


@pytest.mark.parametrize("num_real", [0, 5])
def test_more_real_heads_than_heads_or_none_is_refused(num_real):
    weights = vit_weights()
    with pytest.raises(ValueError, match=f"{num_real} real of 4 heads"):
        pair_heads(weights, DIM, calibrated(weights), num_real)
