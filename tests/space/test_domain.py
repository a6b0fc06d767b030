from small_spaces import every_choice

from nas.space.domain import GENES, LATER, LayerDomain


def test_widths_are_more_than_arrive_and_only_behind_a_reducer():
    domain = every_choice(embed_dim=(0, 12, 24))
    assert domain.widths(12, "pool") == (0, 24)
    assert domain.widths(24, "pool") == (0,)
    assert domain.widths(8, None) == (0,)
    assert every_choice(embed_dim=(12,)).widths(12, "glad") == ()


def test_genes_that_came_later_are_there_where_they_have_choices():
    plain = LayerDomain(num_tokens=(16,), num_heads=(1,))
    assert plain.genes == tuple(gene for gene in GENES if gene not in LATER)
    assert every_choice(embed_dim=(0, 12), ffn_conv=(True,)).genes == GENES
    assert every_choice(ffn_conv=(True, False)).convolutions(False) == (False,)
