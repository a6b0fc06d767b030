import pytest
import torch
from small_runs import few_digits, one_thread, tiny_space

from nas.model.supernet import Supernet
from nas.settings.config import TrainConfig
from nas.space.space import parse_space
from nas.training.schedule import guidance_at
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


def test_each_aid_changes_what_is_learnt(tmp_path):
    both = trained(tmp_path / "both")
    for name, off in {"static": {"static_guidance": 0.0}, "linear": {"linear_aux": False}}.items():
        without = trained(tmp_path / name, **off)
        assert any(not torch.equal(both[key], without[key]) for key in both)


def test_static_maps_are_led_down_the_gradient_of_their_distance_to_the_dynamic_ones(tmp_path):
    name, recipe = "blocks.0.attn.static_map_16", {"rule": "sandwich", "ema_decay": 0.0}
    beginning = aided(tmp_path / "beginning", **recipe).supernet.train()
    space, images = beginning.space, few_digits().train.normalized(slice(0, 64))
    static = space.decode({**space.encode(space.largest()), "layers.00.attention": "static"})
    guidance = guidance_at(0.0, TrainConfig(linear_aux=False))
    maps = []
    with one_thread():
        beginning(images, static, guidance=guidance)
        sum(guidance.losses).backward()
        for share in (0.99, 0.0):
            trainer = aided(tmp_path / str(share), static_guidance=share, **recipe)
            trainer.supernet.train()
            for step in range(4):
                trainer.train_step(step)
            maps.append(trainer.supernet.get_parameter(name).detach())
    led, gradient = maps[0] - maps[1], beginning.get_parameter(name).grad
    assert torch.cosine_similarity(led.flatten(), gradient.flatten(), dim=0) < -0.2


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
