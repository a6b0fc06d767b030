"""Options that a backbone may have, what is refused of them, and files as they were before there were any."""

import pytest
from factories import backbone

from nas.arch.backbone import LATER, Backbone
from nas.base.errors import ArchitectureError

TODAY = ("family", "timm", "image_size", "patch_size", "in_chans", "num_classes", "head_dim", "class_token")


@pytest.mark.parametrize("class_token", [True, False])
def test_what_is_as_it_always_was_is_not_said(class_token):
    fixed = backbone(class_token=class_token)
    assert tuple(fixed.to_dict()) == TODAY
    said = backbone(
        class_token=class_token,
        pool="token" if class_token else "avg",
        final_norm="before" if class_token else "after",
        **{name: value for name, value in LATER.items() if name not in ("pool", "final_norm")},
    )
    assert said == fixed
    assert hash(said) == hash(fixed)


OPTIONS = [
    ({"reg_tokens": 4}, 5, "token", "before"),
    ({"pool": "avg"}, 1, "avg", "after"),
    ({"pool": "avg", "final_norm": "before"}, 1, "avg", "before"),
    ({"class_token": False, "final_norm": "before"}, 0, "avg", "before"),
    ({"final_norm": "none", "norm_pre": True, "norm_eps": 1e-5, "act": "silu"}, 1, "token", "none"),
    ({"class_token": False, "positions": "none"}, 0, "avg", "after"),
]


@pytest.mark.parametrize(("changes", "prefix", "pooling", "place"), OPTIONS)
def test_options_are_kept_in_files(changes, prefix, pooling, place):
    fixed = backbone(**changes)
    assert Backbone(**fixed.to_dict()) == fixed
    assert set(fixed.to_dict()) == set(TODAY) | set(changes)
    assert (fixed.num_prefix_tokens, fixed.pooling, fixed.norm_place) == (prefix, pooling, place)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reg_tokens": -1}, "reg_tokens must be at least 0, got -1"),
        ({"reg_tokens": True}, "reg_tokens must be a whole number, got True"),
        ({"pool": "map"}, "pool must be one of token, avg, got 'map'"),
        ({"pool": "token", "class_token": False}, "pool token needs class_token true"),
        ({"final_norm": None}, "final_norm must be one of before, after, none, got None"),
        ({"norm_pre": 1}, "norm_pre must be true or false, got 1"),
        ({"norm_eps": 0.0}, "norm_eps must be a number above 0 and below 1, got 0.0"),
        ({"positions": "sine"}, "positions must be one of learned, none, got 'sine'"),
        ({"act": "relu"}, "act must be one of gelu, gelu_tanh, silu, got 'relu'"),
    ],
)
def test_what_is_no_option_is_refused(changes, message):
    with pytest.raises(ArchitectureError, match=message):
        backbone(**changes)
