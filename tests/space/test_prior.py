"""What draws of a training promise: nothing that a space has becomes rare because it has much else."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from small_spaces import every_choice, listed, space

from nas.space.space import SearchSpace

SPACES = Path(__file__).parents[2] / "search_spaces"
DRAWS = 1200
PLAIN = 0.25  # of the draws, at least
DEVIATIONS = 5  # of a share over so many draws: what chance does not do


def drawn(searched, count=DRAWS):
    rng = np.random.default_rng(0)
    return [searched.sample_by_gene(rng) for _ in range(count)]


def is_plain(architecture):
    return all(is_plain_layer(layer) for layer in architecture.layers)


def is_plain_layer(layer):
    return (layer.reducer, layer.attention, layer.num_hallucinated, layer.ffn_rank) == (None, "dynamic", 0, 1.0)


def assert_share(found, wanted, draws=DRAWS):
    assert abs(found / draws - wanted) < DEVIATIONS * np.sqrt(wanted * (1 - wanted) / draws), (found / draws, wanted)


@pytest.fixture(scope="module", params=["cifar_joint", "deit_tiny", "joint_small", "digits"])
def shipped(request):
    searched = SearchSpace.from_yaml(SPACES / f"{request.param}.yaml")
    return searched, drawn(searched)


def test_widths_and_depths_come_equally_often(shipped):
    searched, found = shipped
    for values, key in ((searched.embed_dim, "embed_dim"), (searched.depth, "depth")):
        seen = Counter(getattr(architecture, key) for architecture in found)
        assert set(seen) == set(values)
        for value in values:
            assert_share(seen[value], 1 / len(values))


def test_a_quarter_is_plain_at_every_size_and_another_half_plain(shipped):
    searched, found = shipped
    plain = [architecture for architecture in found if is_plain(architecture)]
    assert len(plain) > DRAWS * PLAIN - DEVIATIONS * np.sqrt(DRAWS * PLAIN * (1 - PLAIN))
    sizes = Counter((a.embed_dim, a.depth) for a in plain)
    assert len(sizes) == len(searched.embed_dim) * len(searched.depth)
    for domain, gene in ((searched.layers[0], "num_heads"), (searched.layers[0], "mlp_ratio")):
        assert {getattr(a.layers[0], gene) for a in plain} == set(getattr(domain, gene))
    for i in range(min(searched.depth)):
        assert sum(is_plain_layer(a.layers[i]) for a in found) > DRAWS * PLAIN


def test_every_choice_of_a_layer_has_its_floor(shipped):
    searched, found = shipped
    genes = ("num_tokens", "reducer", "attention", "num_heads", "hallucination", "ffn_rank", "mlp_ratio")
    rng = np.random.default_rng(1)
    possible = [searched.sample(rng) for _ in range(100)]  # not all that a domain lists can be had in its layer
    for i in range(min(searched.depth)):
        for gene in genes:
            seen = Counter(getattr(architecture.layers[i], gene) for architecture in found)
            assert all(seen[getattr(other.layers[i], gene)] >= 3 for other in possible), (i, gene, seen)


def test_reductions_come_as_often_as_not_and_anywhere():
    searched = SearchSpace.from_yaml(SPACES / "cifar_joint.yaml")
    found = [a for a in drawn(searched, 4 * DRAWS) if not is_plain(a)]
    counts = Counter(sum(layer.reducer is not None for layer in a.layers) for a in found)
    assert min(counts[n] for n in range(3)) > 0.15 * len(found)
    first = Counter(
        next(i for i, x in enumerate(a.layers) if x.reducer) for a in found if any(x.reducer for x in a.layers)
    )
    layers = [i for i, domain in enumerate(searched.layers) if min(domain.num_tokens) < searched.backbone.num_patches]
    assert set(first) >= set(layers[: min(searched.depth) - 1])


def test_every_architecture_of_a_small_space_is_drawn():
    domain = every_choice(
        num_tokens=(16, 6), num_heads=(1, 2), hallucination_ratio=(0.0,), ffn_rank=(0.25, 1.0), mlp_ratio=(1.0,)
    )
    searched = space(domain, depth=(1, 2), embed_dim=(8,))
    assert set(drawn(searched, 60 * searched.size())) == set(listed(searched))
