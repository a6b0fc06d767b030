"""Other axes of the residual stream change nothing for the whole network, and keep most of it in its first channels."""

from dataclasses import replace

import pytest
import torch
from factories import backbone
from plain_vits import HEAD_DIM as DIM
from plain_vits import images, vit_weights
from small_spaces import space

from nas.arch.architecture import Architecture, LayerChoice
from nas.initial.pretrained import plain_subnet
from nas.initial.rotation import rotate_stream
from nas.model.supernet import Supernet
from nas.space.domain import LayerDomain
from nas.training.operators.calibration import calibrate

WIDTH = 4 * DIM


def calibrated(weights, fixed=None):
    return calibrate(plain_subnet(weights, fixed or backbone()), [images(64)])


def rotated(weights, fixed=None):
    return rotate_stream(weights, calibrated(weights, fixed))


def logits_at(weights, width):
    """Of the first channels."""
    domain = LayerDomain(num_tokens=(16,), num_heads=(4,), mlp_ratio=(2.0, 2.0 * WIDTH / width)[: 1 + (width < WIDTH)])
    supernet = Supernet(space(domain, embed_dim=tuple(sorted({width, WIDTH})), depth=(2,)))
    supernet.load_timm(weights)
    layer = LayerChoice(num_tokens=16, num_heads=4, mlp_ratio=2.0 * WIDTH / width)
    with torch.no_grad():
        return supernet.eval()(images(), Architecture(embed_dim=width, layers=(layer,) * 2))


def of_low_rank(weights, rank):
    """Everything that writes to the stream does so in a space of so many dimensions, which (1, ..., 1) is none of."""
    basis = torch.linalg.qr(torch.randn(WIDTH, rank + 1, generator=torch.Generator().manual_seed(2))).Q
    basis = torch.linalg.qr(basis - basis.mean(dim=0)).Q[:, :rank]
    keep = basis @ basis.T
    for name, value in weights.items():
        if name.endswith(("proj.weight", "fc2.weight")):
            weights[name] = (keep @ value.flatten(1)).view_as(value)
        elif name.endswith(("proj.bias", "fc2.bias")):
            weights[name] = keep @ value
        elif name in ("cls_token", "pos_embed"):
            weights[name] = value @ keep
    return weights


@pytest.mark.parametrize("class_token", [True, False], ids=["class_token", "mean_pooled"])
def test_the_whole_network_has_the_same_logits_and_norms_without_gains(class_token):
    weights, fixed = vit_weights(class_token=class_token), backbone(class_token=class_token)
    result = rotated(weights, fixed)
    before, after = (plain_subnet(w, fixed)(images()).detach() for w in (weights, result))
    torch.testing.assert_close(after, before, atol=1e-5, rtol=0)
    assert {name: value.shape for name, value in result.items()} == {n: v.shape for n, v in weights.items()}
    norms = [value for name, value in result.items() if "norm" in name and name.endswith("weight")]
    assert len(norms) == 5
    assert all((value == 1).all() for value in norms)


def test_a_stream_of_few_dimensions_fits_into_few_channels_but_for_the_scale_of_norms():
    width = 16
    weights = of_low_rank(vit_weights(), 10)
    whole = logits_at(rotated(weights), WIDTH)
    kept = rotated(weights)
    for name in kept:  # a norm over fewer channels divides by more of what each has
        if "norm" in name and name.endswith("weight"):
            kept[name] = kept[name] * (WIDTH / width) ** 0.5
    torch.testing.assert_close(logits_at(kept, width), whole, atol=2e-4, rtol=0)
    assert (logits_at(weights, width) - whole).abs().max() > 0.1


def test_the_first_channels_hold_the_most_of_what_is_read():
    weights = rotated(vit_weights())
    stream = calibrated(weights).stream
    held = [float(stream[:m, :m].trace() - stream[:m, :m].sum() / m) for m in range(2, WIDTH + 1)]
    shares = torch.tensor([held[0], *torch.tensor(held).diff().tolist()])
    assert (shares.diff() <= 1e-6 * held[-1]).all()


def test_directions_that_no_image_showed_are_kept_too():
    weights, seen = vit_weights(), torch.randn(WIDTH, 3, dtype=torch.float64)
    seen -= seen.mean(dim=0)
    result = rotate_stream(weights, replace(calibrated(weights), stream=seen @ seen.T))
    before, after = (plain_subnet(w, backbone())(images()).detach() for w in (weights, result))
    torch.testing.assert_close(after, before, atol=1e-5, rtol=0)


def test_where_the_stream_goes_through_a_norm_nothing_is_changed():
    weights, calibration = vit_weights(), calibrated(vit_weights())
    both = weights | {"norm_pre.weight": torch.ones(WIDTH), "norm_pre.bias": torch.zeros(WIDTH)}
    assert all(torch.equal(value, both[name]) for name, value in rotate_stream(both, calibration).items())
