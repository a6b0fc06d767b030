"""Models of timm in the place of a supernet: trained by the same trainer, as timm itself computes them."""

import copy

import numpy as np
import pytest
import timm
import torch
from small_runs import few_digits
from timm.models._manipulate import group_parameters

from nas.arch import Backbone
from nas.base.errors import ConfigError
from nas.settings.config import TrainConfig
from nas.training import guest as guests
from nas.training.guest import Guest
from nas.training.schedule import learning_rate
from nas.training.trainer import SupernetTrainer

BACKBONE = Backbone(image_size=32, patch_size=8, num_classes=10)
INFO = few_digits().info


def build(name, *, seed=0, drop_path=0.0):
    return Guest(f"timm:{name}", BACKBONE, INFO, seed=seed, drop_path=drop_path)


def images(count=2):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_convnext"])
def test_it_is_timms_model_for_these_images_and_classes(name):
    guest = build(name, seed=3)
    torch.manual_seed(3)
    size = {"img_size": 32} if name == "test_vit" else {}
    model = timm.create_model(name, num_classes=10, **size).eval()
    with torch.no_grad():
        assert torch.equal(guest(images()), model(images()))
    assert guest.params() == sum(parameter.numel() for parameter in model.parameters())


def test_macs_are_those_of_its_convolutions_and_matrices():
    guest, found = build("test_resnet"), []

    def count(module, _, output):
        found.append(module.weight.numel() * (output[0, 0].numel() if output.ndim == 4 else 1))

    for module in guest.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(count)
    guest(images(1))
    wanted = sum(found)
    assert guest.macs() == wanted > 0


def test_every_parameter_is_in_the_layer_where_timm_has_it_and_is_decayed_as_there():
    for name in ("test_vit", "test_resnet", "test_convnext", "mobilenetv3_small_050"):
        guest = build(name)
        ours = group_parameters(guest, guest.group_matcher())
        theirs = group_parameters(guest.model, guest.model.group_matcher())
        assert {key: [name.removeprefix("model.") for name in names] for key, names in ours.items()} == theirs
    assert "model.pos_embed" in build("test_vit").no_weight_decay()


def test_a_transformer_learns_at_the_rate_of_its_width_and_others_at_the_full_one():
    assert learning_rate(TrainConfig(), build("test_vit").space) == pytest.approx(2e-3 * 48 / 64)
    assert learning_rate(TrainConfig(), build("test_resnet").space) == 2e-3


def test_drop_path_is_the_models_own():
    assert build("test_vit", drop_path=0.2).model.blocks[-1].drop_path1.drop_prob == pytest.approx(0.2)
    with pytest.raises(ConfigError, match="drop_path_rate"):
        build("vgg11", drop_path=0.2)


def test_trained_weights_see_images_normalised_as_they_were_trained(monkeypatch):
    def pretrained(name, **options):
        torch.manual_seed(0)
        model = timm.create_model(name.partition(".")[0], **options)
        model.pretrained_cfg = {**model.pretrained_cfg, "mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7)}
        return model

    monkeypatch.setattr(guests, "pretrained_model", pretrained)
    guest = build("test_resnet.r160_in1k")
    assert guest.is_pretrained
    pixels = torch.rand(2, 3, 32, 32)
    mean, std, own_mean, own_std = (
        torch.tensor(values).view(1, 3, 1, 1) for values in (INFO.mean, INFO.std, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    )
    with torch.no_grad():
        found, wanted = guest((pixels - mean) / std), guest.model((pixels - own_mean) / own_std)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def trainer(folder, guest=None):
    return SupernetTrainer(
        guest or Guest("timm:mobilenetv3_small_050", Backbone(image_size=8, patch_size=2, num_classes=10), INFO),
        few_digits().train,
        TrainConfig(epochs=2, batch_size=32, warmup_epochs=0, static_guidance=0.0, checkpoint_minutes=1e-9),
        seed=0,
        device=torch.device("cpu"),
        precision="fp32",
        directory=folder,
        start=lambda _: None,
    )


def test_averages_are_those_of_timm_and_counts_of_batches_are_counts(tmp_path):
    one = trainer(tmp_path)
    start = one.begin()
    timms = copy.deepcopy(one.ema)
    for step in range(start, start + 3):
        one.train_step(step)
        timms.update(one.supernet, step=step)
    found, wanted = one.ema.module.state_dict(), timms.module.state_dict()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert {int(value) for name, value in found.items() if name.endswith("num_batches_tracked")} == {3}


def test_a_training_that_is_killed_goes_on_to_the_same_weights(tmp_path):
    whole = copy.deepcopy(trainer(tmp_path / "whole").run().state_dict())
    assert any("running_mean" in name for name in whole)  # statistics of batches are resumed, too
    trainer(tmp_path / "killed").run(until=3)
    resumed = trainer(tmp_path / "killed").run().state_dict()
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_stochastic_depth_that_a_model_has_not_is_named_in_the_hint():
    with pytest.raises(ConfigError, match="drop_path_rate") as refused:
        build("ghostnet_050", drop_path=0.1)
    assert "train.drop_path=0" in refused.value.hint


@pytest.mark.parametrize(
    ("name", "words", "hint"),
    [
        ("resnett18", "no such model", "timm:resnet18"),
        ("resnet18.none_such", "no such trained weights", "timm:resnet18."),
        ("vit_tiny_patch16_xyz", "no such model", "timm:vit_tiny_patch16"),
        ("inception_v3", "cannot take images of 32 pixels", "another image_size"),
    ],
)
def test_what_timm_does_not_have_or_cannot_run_is_said(name, words, hint):
    with pytest.raises(ConfigError, match=words) as caught:
        build(name)
    assert hint in caught.value.hint


def test_weights_that_cannot_be_had_are_said(monkeypatch):
    def unreachable(*_, **__):
        raise OSError("the hub cannot be reached")

    monkeypatch.setattr(guests, "pretrained_model", unreachable)
    with pytest.raises(ConfigError, match="cannot be reached") as caught:
        build("resnet18.a1_in1k")
    assert caught.value.hint == "timm:resnet18, without a tag, starts from random weights"
