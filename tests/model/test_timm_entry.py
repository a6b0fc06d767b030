"""timm builds a searched network from its two mappings, and says what it cannot take."""

import pytest
import timm
import torch
from factories import backbone, plain, varied

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
