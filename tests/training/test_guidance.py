import math

import pytest
import torch
from small_runs import few_digits, one_thread, tiny_space

from nas.model.supernet import Supernet
from nas.settings.config import TrainConfig
from nas.space.space import parse_space
from nas.training.operators.calibration import calibrate
from nas.training.operators.static_maps import FASTER
from nas.training.trainer import SupernetTrainer

AIDED = """
name: aided
backbone: {image_size: 8, patch_size: 2, num_classes: 10, head_dim: 8}
embed_dim: 16
depth: 2
layers: {attention: [dynamic, static, linear], num_heads: 2, mlp_ratio: 2, ffn_rank: [0.5, 1]}
"""


def aided(directory, **recipe):
    space = parse_space(AIDED, "aided.yaml")
    changes = {"epochs": 2, "batch_size": 32, "lr": 1e-2, "warmup_epochs": 0, "num_random": 2, **recipe}
    supernet = Supernet(space)
    with torch.no_grad():  # maps that differ from image to image, with entries above the mask's threshold
        for layer in range(2):
            supernet.get_parameter(f"blocks.{layer}.attn.qkv.weight").mul_(20)
    return SupernetTrainer(
        supernet,
        few_digits().train,
        TrainConfig(**changes),
        seed=0,
        device=torch.device("cpu"),
        precision="fp32",
        directory=directory,
    )


def trained(directory, **recipe):
    with one_thread():
        return {name: value.clone() for name, value in aided(directory, **recipe).run().state_dict().items()}


def test_guidance_changes_what_is_learnt(tmp_path):
    guided, without = trained(tmp_path / "guided"), trained(tmp_path / "without", static_guidance=0.0)
    assert any(not torch.equal(guided[key], without[key]) for key in guided)


def maps_of(supernet):
    return {name: p.detach().clone() for name, p in supernet.named_parameters() if "static_map" in name}


def in_steps(trainer, *, until):
    """What the static maps are after each step."""
    trainer.supernet.train()
    found = []
    for step in range(until):
        trainer.train_step(step)
        found.append(maps_of(trainer.supernet))
    return found


SET = 2  # the step before which the maps of `aided` are set: 8 steps, of which 60 % are guided


def test_static_maps_rest_then_are_set_then_learn(tmp_path):
    with one_thread():
        trainer = aided(tmp_path, static_guidance=0.6, rule="sandwich")
        assert trainer.schedule.static_step == SET
        first = maps_of(trainer.supernet)
        found = in_steps(trainer, until=SET + 4)
    for name, value in first.items():
        assert all(torch.equal(maps[name], value) for maps in found[:SET])
        assert not torch.allclose(found[SET][name], value, atol=0.5)  # no part in this step: it is as it was set
        assert not torch.equal(found[SET + 3][name], found[SET][name])


def test_maps_are_set_when_dynamic_ones_are_sharp_and_differ_from_image_to_image(tmp_path):
    with one_thread():
        trainer = aided(tmp_path, static_guidance=0.6)
        maps = in_steps(trainer, until=SET + 1)[-1]
        calibration = calibrate(trainer.supernet.dense(), [few_digits().train.normalized(slice(0, 64))])
    for value in maps.values():
        assert torch.special.entr(value.softmax(dim=2)).sum(dim=2).mean() < 0.95 * math.log(value.shape[2])
    assert all(layer.dispersion > 0.05 for layer in calibration.layers)  # KL(dynamic || its mean), nats


def test_maps_are_set_near(tmp_path):
    with one_thread():
        maps = in_steps(aided(tmp_path, static_guidance=0.6), until=SET + 1)[-1]
    for name, value in maps.items():
        if name.endswith("_16"):
            weights = value.softmax(dim=2)
            assert (weights[:, 1, 16] < 0.01 * weights[:, 1, 1]).all()  # the opposite corner of 4 x 4 patches


def test_the_averaged_maps_are_set_too(tmp_path):
    with one_thread():
        trainer = aided(tmp_path, static_guidance=0.6)
        in_steps(trainer, until=SET + 1)
    now, averaged = maps_of(trainer.supernet), maps_of(trainer.ema.module)
    assert all(torch.equal(now[name], averaged[name]) for name in now)


def test_a_supernet_that_is_looked_at_before_has_such_maps_too(tmp_path):
    with one_thread():
        trainer = aided(tmp_path, static_guidance=0.6)
        first = maps_of(trainer.supernet)
        looked_at = maps_of(trainer.run(until=SET))
    assert all(torch.equal(maps_of(trainer.supernet)[name], value) for name, value in first.items())
    assert not any(torch.allclose(looked_at[name], value, atol=0.5) for name, value in first.items())


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_static_maps_learn_faster_by_as_much_whatever_the_layer(tmp_path, layer_decay):
    trainer = aided(tmp_path, layer_decay=layer_decay)
    trainer.train_step(0)
    names = {parameter: name for name, parameter in trainer.supernet.named_parameters()}
    rates = {names[p]: group["lr"] for group in trainer.optimizer.param_groups for p in group["params"]}
    assert rates.keys() == set(names.values())
    assert FASTER >= 3  # at the rate of other weights maps stay at their mean
    for layer in range(2):
        prefix = f"blocks.{layer}.attn"
        assert rates[f"{prefix}.static_map_16"] == pytest.approx(FASTER * rates[f"{prefix}.qkv.weight"])
        gain = f"{prefix}.linear_gain"
        assert gain not in rates or rates[gain] == pytest.approx(FASTER * rates[f"{prefix}.qkv.weight"])


@pytest.mark.parametrize("step", [SET - 1, SET, SET + 1, SET + 3])
def test_resuming_is_exact_before_while_and_after_maps_are_set(tmp_path, step):
    recipe = {"static_guidance": 0.6, "checkpoint_minutes": 1e-9}
    whole = trained(tmp_path / "whole", **recipe)
    with one_thread():
        aided(tmp_path / "parts", **recipe).run(until=step)
    parts = trained(tmp_path / "parts", **recipe)
    assert all(torch.equal(parts[name], whole[name]) for name in whole)


@pytest.mark.parametrize("rule", ["sandwich", "single_path"])
def test_a_space_of_one_architecture_is_trained_once_a_step(tmp_path, rule):
    space = tiny_space()
    one = parse_space(AIDED.replace("[dynamic, static, linear]", "dynamic").replace("[0.5, 1]", "1"), "one")
    assert one.size() == 1 < space.size()
    with one_thread():
        trainer = SupernetTrainer(
            Supernet(one),
            few_digits().train,
            TrainConfig(rule=rule, epochs=1, batch_size=64),
            seed=0,
            device=torch.device("cpu"),
            precision="fp32",
            directory=tmp_path,
        )
        largest, smallest, random = trainer.train_step(0)
    assert largest == smallest == random
