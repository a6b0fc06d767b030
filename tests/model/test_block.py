"""A block tells its operators of a frame only where there is one, and drops out what it adds."""

import torch
from torch import nn

from nas.arch.architecture import LayerChoice, LayerContext
from nas.arch.backbone import Backbone
from nas.model.block import Block
from nas.model.layers.part import Frame

BACKBONE = Backbone(image_size=16, patch_size=4, head_dim=8)
REDUCED = LayerChoice(num_tokens=4, num_heads=2, mlp_ratio=2, reducer="pool")


class Plain(nn.Module):
    """A reducer of somebody else that knows no frames."""

    def forward(self, x):
        return x[:, :5]


def block(**options):
    torch.manual_seed(0)
    return Block(16, REDUCED, LayerContext(tokens_before=16), BACKBONE, **options)


def test_an_operator_that_knows_no_frames_runs_as_it_was_searched():
    plain = block()
    plain.reducer = Plain()
    assert plain(torch.randn(2, 17, 16), None)[0].shape == (2, 5, 16)


def test_a_frame_reaches_the_reducer():
    frame = Frame((6, 8), (3, 4), (2, 2), (2, 2))
    assert block()(torch.randn(2, 49, 16), None, None, frame)[0].shape == (2, 13, 16)


def test_dropout_leaves_out_what_attention_and_feed_forward_add():
    everything = block(drop=1.0).train()
    x = torch.randn(2, 17, 16)
    assert torch.equal(everything(x, None)[0], everything.reducer(x))
    assert not torch.equal(everything.eval()(x, None)[0], everything.reducer(x))
