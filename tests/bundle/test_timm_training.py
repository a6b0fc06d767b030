"""What timm's train.py and validate.py do with a model, done with a bundle: build, average, save, resume, validate."""

import argparse
import copy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from bundles import CLASS_TOKEN, EVERY_OPERATOR, export, images_for, logits_of, subnet_of
from timm.models import load_checkpoint, resume_checkpoint
from timm.optim import create_optimizer_v2
from timm.utils import CheckpointSaver, ModelEmaV3, NativeScaler

OF_TRAIN_PY = {
    "drop_rate": 0.0,
    "drop_path_rate": None,
    "drop_block_rate": None,
    "global_pool": None,
    "bn_momentum": None,
    "bn_eps": None,
    "scriptable": False,
    "checkpoint_path": "",
}
OF_VALIDATE_PY = {"num_classes": None, "in_chans": 3, "global_pool": None, "scriptable": False}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("training") / "b"
    export(subnet_of(EVERY_OPERATOR, CLASS_TOKEN), folder)
    return f"local-dir:{folder}"


def built(source: str, **changes: Any) -> Any:
    return timm.create_model(source, pretrained=True, **{**OF_TRAIN_PY, "in_chans": 3, "num_classes": 4, **changes})


def optimizer_of(model: Any) -> torch.optim.Optimizer:
    return create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.75)


def step(model: Any, optimizer: torch.optim.Optimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(2, 3, 48, 48, generator=generator)
    optimizer.zero_grad()
    model.train()(images).square().sum().backward()
    optimizer.step()


def test_a_bundle_trains_at_another_size_and_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(
    source: str, tmp_path: Path
) -> None:
    model = built(source, img_size=48)
    model.set_grad_checkpointing(enable=True)
    optimizer, average, scaler = optimizer_of(model), ModelEmaV3(model, decay=0.5), NativeScaler(device="cpu")
    step(model, optimizer, 0)
    average.update(model, step=1)
    arguments = argparse.Namespace(model=source)
    saver = CheckpointSaver(
        model, optimizer, args=arguments, model_ema=average, amp_scaler=scaler, checkpoint_dir=str(tmp_path),
        recovery_dir=str(tmp_path), max_history=2,
    )  # fmt: skip
    saver.save_checkpoint(0, metric=1.0)
    averaged = copy.deepcopy(average.module)
    step(model, optimizer, 1)

    again = built(source, img_size=48)
    resumed = optimizer_of(again)
    assert resume_checkpoint(again, str(tmp_path / "last.pth.tar"), optimizer=resumed, loss_scaler=None) == 1
    step(again, resumed, 1)
    for (name, one), other in zip(model.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other), name

    validated = timm.create_model(source, **{**OF_VALIDATE_PY, "num_classes": 4}, img_size=48).eval()
    load_checkpoint(validated, str(tmp_path / "last.pth.tar"), use_ema=True)
    images = torch.randn(2, 3, 48, 48)
    assert torch.equal(logits_of(validated, images), logits_of(averaged.eval(), images))


def test_what_validate_builds_is_the_bundle(source: str) -> None:
    model = timm.create_model(source, pretrained=True, **OF_VALIDATE_PY).eval()
    expected = logits_of(subnet_of(EVERY_OPERATOR, CLASS_TOKEN), images_for(CLASS_TOKEN))
    assert torch.equal(logits_of(model, images_for(CLASS_TOKEN)), expected)
    config = timm.data.resolve_data_config({"img_size": 48}, model=model)
    assert config["input_size"] == (3, 48, 48)
