import factories

from nas.arch.drawing import draw_layers


def test_layers_are_drawn_with_one_glyph_each_and_a_mark_where_tokens_fall():
    assert draw_layers(factories.varied()) == "●○◐▾■◐○◇▾●◇"
    assert draw_layers(factories.plain(4)) == "●●●●"
