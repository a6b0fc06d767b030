import json
from itertools import pairwise

import numpy as np
import pytest
from small_runs import tiny_space

from nas.arch import cost
from nas.settings.config import TrainConfig
from nas.space.space import SearchSpace, parse_space
from nas.training.sampling import STAGES, drawn, free_genes


def subnets(space, *, seed, step, num_random, progress=1.0, **recipe):
    """Of a step, a sandwich's if nothing else is said."""
    config = TrainConfig(**{"rule": "sandwich", "num_random": num_random, **recipe})
    return drawn(space, config, seed=seed, step=step, progress=progress)


def test_the_first_two_are_the_largest_and_the_smallest():
    space = tiny_space()
    drawn = subnets(space, seed=0, step=3, num_random=2)
    assert len(drawn) == 4
    assert drawn[:2] == (space.largest(), space.smallest())
    assert all(architecture in space for architecture in drawn)


def test_no_random_ones_are_drawn_where_none_are_asked_for():
    space = tiny_space()
    assert subnets(space, seed=0, step=0, num_random=0) == (space.largest(), space.smallest())


def test_a_step_is_a_function_of_space_seed_and_step():
    space = tiny_space()

    def at(seed, step):
        return subnets(space, seed=seed, step=step, num_random=4)

    assert at(1, 2) == at(1, 2)
    assert len({at(seed, step) for seed in range(3) for step in range(3)}) == 9


@pytest.mark.parametrize("seed", [0, 1])
def test_random_ones_are_spread_over_the_whole_range_of_costs(seed):
    space = tiny_space()
    low, high = space.macs_range()
    steps = (subnets(space, seed=seed, step=step, num_random=2, draw="stratified") for step in range(100))
    random = [a for step in steps for a in step[2:]]
    shares = [(cost.macs(a, space.backbone) - low) / (high - low) for a in random]
    quarters = [sum(q / 4 <= share < (q + 1) / 4 for share in shares) for q in range(4)]
    assert min(quarters) >= 0.1 * len(shares)


def test_a_single_path_step_has_random_ones_only_and_one_at_least():
    space = tiny_space()
    steps = [subnets(space, seed=0, step=step, num_random=0, rule="single_path", ends=0.0) for step in range(20)]
    assert {len(step) for step in steps} == {1}
    assert len(set(steps)) > 10


@pytest.mark.parametrize("draw", ["by_gene", "uniform", "stratified"])
@pytest.mark.parametrize("count", [1, 2])
def test_a_share_of_single_paths_is_the_smallest_or_the_largest(count, draw):
    space = tiny_space()

    def found(ends):
        recipe = {"num_random": count, "rule": "single_path", "draw": draw, "ends": ends}
        first = [subnets(space, seed=0, step=step, **recipe)[0] for step in range(600)]
        return np.array([first.count(space.smallest()), first.count(space.largest())]) / 600

    chance = found(0.0)  # the tiny space is hit at its ends by stratified draws as well
    assert (found(0.3) - chance) / (1 - chance) == pytest.approx([0.2, 0.1], abs=0.05)
    assert found(0.9) == pytest.approx([0.6, 0.3], abs=0.06)


@pytest.mark.parametrize("rule", ["single_path", "sandwich"])
def test_a_share_of_random_ones_has_one_kind_of_attention_wherever_it_can_be_had(rule):
    space = mixed_space()
    kinds = [set(domain.attention) for domain in space.layers]

    def found(share):
        recipe = {"num_random": 1, "rule": rule, "draw": "uniform", "ends": 0.0, "same_attention": share}
        random = [subnets(space, seed=0, step=step, **recipe)[-1] for step in range(400)]
        assert all(architecture in space for architecture in random)
        return [
            {kind for kind in {"dynamic", "static", "linear"} if uses_throughout(architecture, kind, kinds)}
            for architecture in random
        ]

    by_chance, always = found(0.0), found(0.99)
    assert sum(map(bool, by_chance)) < 80
    assert sum(map(bool, always)) > 390
    for kind in ("dynamic", "static", "linear"):
        assert sum(kind in one for one in always) > 90
    assert sum(map(bool, found(0.3))) == pytest.approx(120 + 0.7 * sum(map(bool, by_chance)), abs=35)


def uses_throughout(architecture, kind, kinds):
    return all(
        layer.attention == kind for layer, known in zip(architecture.layers, kinds, strict=False) if kind in known
    )


def mixed_space():
    layers = {"num_tokens": 64, "attention": ["dynamic", "static", "linear"], "num_heads": [1, 2], "mlp_ratio": [1, 2]}
    backbone = {"image_size": 32, "patch_size": 4, "num_classes": 10, "head_dim": 16}
    overrides = [{"layers": "last", "attention": ["dynamic", "linear"]}]
    content = {"name": "mixed", "backbone": backbone, "embed_dim": 32, "depth": 4, "layers": layers}
    return parse_space(json.dumps(content | {"overrides": overrides}), "mixed.yaml")


def test_uniform_draws_are_those_of_the_space():
    space = tiny_space()
    low, high = space.macs_range()

    def mean_share(draw):
        costs = [
            cost.macs(a, space.backbone)
            for step in range(60)
            for a in subnets(space, seed=0, step=step, num_random=2, rule="single_path", draw=draw)
        ]
        return sum(costs) / len(costs), costs

    uniform, stratified = mean_share("uniform")[1], mean_share("stratified")[1]
    assert uniform != stratified
    assert sum(c > (low + high) / 2 for c in uniform) < sum(c > (low + high) / 2 for c in stratified)


def test_genes_are_set_free_stage_by_stage():
    free = [free_genes(step / 100, 0.8) for step in range(100)]
    assert free[0] == frozenset(STAGES[0])
    assert all(before <= after for before, after in pairwise(free))
    assert "depth" not in free[59]
    assert "depth" in free[61]
    assert free[80] == free_genes(0.0, 0.0) == {gene for stage in STAGES for gene in stage}


def test_what_is_not_free_is_as_in_the_largest():
    space = SearchSpace.from_yaml("search_spaces/cifar_joint.yaml").with_num_classes(10)
    largest = space.largest()
    for step in range(10):
        held = subnets(space, seed=0, step=step, num_random=2, progressive=0.8, progress=0.0)
        assert held[0] == largest
        assert {(a.embed_dim, a.depth) for a in held} == {(largest.embed_dim, largest.depth)}
        assert all(
            [layer.num_tokens for layer in a.layers] == [layer.num_tokens for layer in largest.layers] for a in held
        )
        assert all(a in space for a in held)
    whole = subnets(space, seed=0, step=0, num_random=2, progressive=0.8, progress=0.9)
    assert whole == subnets(space, seed=0, step=0, num_random=2)
