from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from small_spaces import every_choice, listed, space

from nas.arch import cost
from nas.space.constraints import Constraints
from nas.space.space import SearchSpace

SPACE = space()
BOUNDED = space(constraints=Constraints(max_macs=120_000, max_params=8_000))

JOINT = SearchSpace.from_yaml(Path(__file__).parents[2] / "search_spaces" / "joint_tiny.yaml")


def test_sampling_is_uniform():
    domain = every_choice(
        num_tokens=(16, 6), num_heads=(1, 2), hallucination_ratio=(0.0,), ffn_rank=(0.25, 1.0), mlp_ratio=(1.0,)
    )
    searched = space(domain, depth=(1, 2), embed_dim=(8,))
    members = set(listed(searched))
    draws = 20 * len(members)
    rng = np.random.default_rng(0)
    seen = Counter(searched.sample(rng) for _ in range(draws))
    assert set(seen) <= members
    chi_square = sum((seen[a] - 20) ** 2 / 20 for a in members)
    freedom = len(members) - 1
    assert abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom)


def test_samples_are_members_and_reproducible():
    for searched in (SPACE, BOUNDED):
        for draw in (searched.sample, searched.sample_stratified, searched.sample_by_gene):
            drawn = [draw(np.random.default_rng(seed)) for seed in range(10)]
            assert all(a in searched for a in drawn)
            assert drawn == [draw(np.random.default_rng(seed)) for seed in range(10)]
            assert len(set(drawn)) > 7


@pytest.mark.parametrize("searched", [SPACE, BOUNDED, JOINT], ids=["free", "bounded", "joint"])
def test_stratified_samples_cover_the_range_of_macs_evenly(searched):
    rng = np.random.default_rng(0)
    drawn = [cost.macs(searched.sample_stratified(rng), searched.backbone) for _ in range(60)]
    share = np.histogram(drawn, bins=5, range=searched.macs_range())[0] / 60
    assert min(share) >= 0.1, share


def test_mutation_gives_a_near_neighbour_of_the_space():
    rng = np.random.default_rng(0)
    changed = Counter()
    for searched in (SPACE, BOUNDED, JOINT):
        for _ in range(30):
            architecture = searched.sample(rng)
            neighbour = searched.mutate(architecture, rng)
            assert neighbour != architecture
            assert neighbour in searched
            before, after = searched.encode(architecture), searched.encode(neighbour)
            if searched is SPACE:
                changed.update(name.split(".")[-1] for name in before if before[name] != after[name])
    assert changed.keys() == {name.split(".")[-1] for name in SPACE.choices()}


def test_mutation_finds_the_only_neighbour():
    domain = every_choice(
        num_tokens=(16,),
        attention=("dynamic",),
        num_heads=(1,),
        hallucination_ratio=(0.0, 0.1, 0.2, 0.7),
        ffn_rank=(1.0, 0.75),
        ffn_conv=(False,),
        mlp_ratio=(1.0, 2.0),
    )
    searched = space(domain, embed_dim=(8,), depth=(1,))
    rng = np.random.default_rng(0)
    assert all(searched.mutate(searched.smallest(), rng) == searched.largest() for _ in range(20))


def test_mutation_of_the_only_architecture_is_itself():
    searched = space(
        every_choice(
            num_tokens=(16,),
            attention=("static",),
            num_heads=(2,),
            ffn_rank=(0.5, 1.0),  # saves nothing: one network (C14)
            ffn_conv=(True,),
            mlp_ratio=(1.0,),
            reducer=("pool",),
        ),
        embed_dim=(8,),
        depth=(1,),
    )
    assert searched.size() == 1
    assert searched.mutate(searched.smallest(), np.random.default_rng(0)) == searched.smallest()
