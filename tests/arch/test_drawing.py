from dataclasses import replace

from factories import plain, varied

from nas.arch.architecture import Architecture, LayerChoice
from nas.arch.drawing import FEWER_TOKENS, LEGEND, LOOKS, draw_layers, look_of


def test_every_kind_has_its_glyph_and_fewer_tokens_a_mark():
    assert draw_layers(varied()) == "●○◐▾■◐○◇▾●◇"
    assert draw_layers(plain(4)) == "●●●●"


def test_the_legend_explains_every_glyph():
    drawn = set(draw_layers(varied()))
    assert drawn == {look.glyph for look in LOOKS} | {FEWER_TOKENS}
    assert all(glyph in LEGEND for glyph in drawn)
    assert LEGEND == "● dynamic  ◐ hallucinated  ■ static  ○ shared  ◇ linear  ▾ fewer tokens"


def test_shared_layers_look_the_same_whether_or_not_they_derive():
    half = {"num_tokens": 16, "num_heads": 2, "mlp_ratio": 1, "hallucination_ratio": 0.5}
    provider, shared = LayerChoice(**half), LayerChoice(**half, attention="shared")
    assert draw_layers(Architecture(embed_dim=8, layers=(provider, shared))) == "◐○"
    assert look_of(shared).name == "shared"


def test_a_stem_that_is_no_patch_embedding_is_told_first():
    assert draw_layers(replace(plain(4), stem="conv")) == "conv ●●●●"
