"""timm builds a searched network from its two mappings, and says what it cannot take."""

import pytest
import timm
import torch
from factories import backbone, plain, varied

from nas.base.errors import ConfigError
from nas.model.families.vit import Subnet

GIVEN = {"architecture": varied().to_dict(), "backbone": backbone().to_dict()}


def create(**changes):
    return timm.create_model("nas_vit", **{**GIVEN, **changes})


def test_timm_builds_the_network_of_the_mappings():
    model = create()
    assert isinstance(model, Subnet)
    assert (model.architecture, model.backbone) == (varied(), backbone())


def test_another_number_of_classes_replaces_the_head_alone():
    model = create(num_classes=7)
    assert model.head.weight.shape[0] == model.num_classes == 7
    assert model(torch.zeros(2, 1, 16, 16)).shape == (2, 7)


def test_what_only_repeats_the_backbone_is_taken():
    assert create(img_size=16, global_pool="token").backbone == backbone()


@pytest.mark.parametrize("changes", [{"embed_dim": 32}, {"class_token": False}, {"no_such": 1}])
def test_what_would_change_the_network_is_refused_by_name(changes):
    with pytest.raises(TypeError, match=next(iter(changes))):
        create(**changes)


@pytest.mark.parametrize("missing", GIVEN)
def test_both_mappings_are_needed(missing):
    with pytest.raises(TypeError, match=f"nas_vit needs {missing}"):
        create(**{missing: None})


def test_features_are_a_map_a_layer_on_the_grid():
    given = {"architecture": plain(depth=3).to_dict(), "backbone": backbone().to_dict()}
    maps = create(**given, features_only=True)(torch.zeros(2, 1, 16, 16))
    assert [tuple(x.shape) for x in maps] == [(2, 24, 4, 4)] * 3


LARGER = {
    "wide": ({"embed_dim": 65_536}, {}),
    "wider than numbers of torch": ({"embed_dim": 10**30}, {}),
    "deep": ({"layers": plain(depth=1).to_dict()["layers"] * 900}, {}),
    "large images": ({}, {"image_size": 4 * 10**8}),
    "many classes": ({}, {"num_classes": 10**12}),
}


@pytest.mark.parametrize("name", LARGER)
def test_a_folder_that_is_of_more_than_its_weights_takes_no_memory(name, tmp_path):
    """Through `local-dir:` itself, which a stranger's bundle is opened with."""
    architecture, fixed = LARGER[name]
    model = create(architecture=plain().to_dict())
    arguments = {"architecture": plain().to_dict() | architecture, "backbone": backbone().to_dict() | fixed}
    if "image_size" in fixed:
        layers = [layer | {"num_tokens": 10**16} for layer in plain().to_dict()["layers"]]
        arguments["architecture"]["layers"] = layers
    timm.models.save_for_hf(model, str(tmp_path), model_args=arguments, safe_serialization=True)
    with pytest.raises(
        ConfigError, match=r"its config\.json is of [\d,]{8,} parameters, its weights have [\d,]+ bytes"
    ):
        timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
