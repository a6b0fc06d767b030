"""A bundle is opened by what it has, and refused before anything loads it where it is not what was written."""

import json

import pytest
import torch
from bundles import MEAN, STD, export, images_for, logits_of, small_subnet

from nas.base.errors import ConfigError
from nas.bundle.opened import open_bundle


@pytest.fixture(scope="module")
def subnet():
    return small_subnet()


@pytest.fixture(scope="module")
def bundle(subnet, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle") / "vit"
    export(subnet, folder, formats=("timm", "onnx"), crop_pct=16 / 20 - 1e-12)
    return folder


@pytest.mark.parametrize(("runtime", "error"), [("torch", 0.0), ("onnx", 1e-4)])
def test_it_runs_the_network_that_was_exported_and_says_what_it_wants(bundle, subnet, runtime, error):
    opened = open_bundle(bundle, runtime)
    images = images_for(subnet.backbone)
    assert torch.allclose(logits_of(opened.run, images), logits_of(subnet, images), rtol=0, atol=error)
    assert (opened.runtime, opened.mean, opened.std, opened.stored_side) == (runtime, MEAN, STD, 20)
    assert opened.provenance["seed"] == 3
    assert opened.class_names[0] == "class 0"


def test_without_a_wish_it_is_the_first_that_is_there(bundle, subnet, tmp_path):
    assert open_bundle(bundle).runtime == "torch"
    export(subnet, tmp_path / "onnx", formats=("onnx",))
    assert open_bundle(tmp_path / "onnx").runtime == "onnx"
    export(subnet, tmp_path / "pt2", formats=("pt2",))
    with pytest.raises(ConfigError, match="has no file that it can be run by; it has pt2"):
        open_bundle(tmp_path / "pt2")


def test_a_damaged_bundle_is_refused_before_it_is_loaded(bundle, tmp_path):
    copy = tmp_path / "vit"
    copy.mkdir()
    for path in bundle.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ConfigError, match="the content is not what was written"):
        open_bundle(copy)
    assert open_bundle(copy, "onnx").runtime == "onnx"
    table = json.loads((copy / "metrics.json").read_text())
    (copy / "metrics.json").write_text(json.dumps({**table, "preprocessing": {}}))
    with pytest.raises(ConfigError, match="is a damaged bundle: mean is missing"):
        open_bundle(copy)
    lacking = {key: value for key, value in table["preprocessing"].items() if key != "class_names"}
    (copy / "metrics.json").write_text(json.dumps({**table, "preprocessing": lacking}))
    with pytest.raises(ConfigError, match="is a damaged bundle: class_names is missing"):
        open_bundle(copy)
    (copy / "metrics.json").write_text(json.dumps({key: table[key] for key in table if key != "formats"}))
    with pytest.raises(ConfigError, match="is no bundle, or a damaged one: formats is missing"):
        open_bundle(copy)
