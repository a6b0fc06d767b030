"""What a front says of its search: edges of the space that bind, and images too few to tell neighbours apart."""

from dataclasses import replace

import factories
import numpy as np
import pytest

from nas.arch import cost
from nas.base.metrics import MACS, TOP1, Objective
from nas.report.front_notes import edge_rows, front_notes, resolution_of
from nas.runs.front import ParetoFront
from nas.runs.point import FrontPoint
from nas.space.space import SearchSpace


def front_of_architectures(space, architectures, top1=lambda macs: 10 * np.log10(macs), half_width=4.0):
    """A front that has them all, unless they are dominated."""
    points = []
    for architecture in {a.digest: a for a in architectures}.values():
        macs = float(cost.macs(architecture, space.backbone))
        measured = factories.measurement(top1(macs), macs, None, 1.0)
        interval = (measured.top1 - half_width, measured.top1 + half_width)
        points.append(FrontPoint(architecture, replace(measured, top1_interval=interval)))
    return ParetoFront.from_points(points, [Objective(TOP1, 0.0), Objective(MACS, 1e12)])


@pytest.fixture(scope="module")
def space():
    return SearchSpace.from_yaml("search_spaces/cifar_small.yaml")


@pytest.mark.parametrize("seed", range(9))
@pytest.mark.parametrize("name", ["digits", "cifar_small", "autoformer_tiny"])
def test_a_front_of_random_networks_is_at_no_edge(name, seed):
    searched, rng = SearchSpace.from_yaml(f"search_spaces/{name}.yaml"), np.random.default_rng(seed)
    draw = (searched.sample_by_gene, searched.sample)[seed % 2]
    found = front_of_architectures(
        searched, [draw(rng) for _ in range(100)], lambda macs: 10 * np.log10(macs) * rng.uniform(0.7, 1)
    )
    assert [row["note"] for row in edge_rows(found, searched) if row["note"]] == []


def test_a_front_that_reduces_as_early_as_may_be_is_told_to_allow_it_earlier(space):
    rng, early = np.random.default_rng(0), []
    while len(early) < 11:
        drawn = space.sample_by_gene(rng)
        if drawn.layers[2].reducer is not None:
            early.append(drawn)
    found = front_of_architectures(space, early)
    rows = {(row["gene"], row["end"]): row for row in edge_rows(found, space)}
    row = rows["first_reduction", "lowest"]
    assert row["value"] == 2
    assert row["share"] == 1
    assert row["members"] == 9
    assert row["share_by_chance"] < 0.5
    words = "9 of 9 inner front members reduce their tokens in the first layer that may (layer 2): allow it earlier"
    assert row["note"] == words
    assert words in front_notes(found, space)["notes"]
    assert rows["embed_dim", "lowest"]["note"] is None


def test_a_front_of_the_narrowest_feed_forwards_is_told_to_allow_narrower_ones(space):
    rng = np.random.default_rng(1)
    narrow = {f"layers.{i:02d}.mlp_ratio": min(domain.mlp_ratio) for i, domain in enumerate(space.layers)}
    drawn = [space.decode({**space.encode(space.sample_by_gene(rng)), **narrow}) for _ in range(12)]
    notes = front_notes(front_of_architectures(space, drawn), space)["notes"]
    least = f"{min(space.layers[0].mlp_ratio):g}"
    assert any(f"have the least mlp_ratio, {least}, in most layers: allow lower ones" in note for note in notes)


def test_the_ends_of_a_front_and_natural_bounds_say_nothing(space):
    plain = [a for a in (space.smallest(), space.largest()) if a is not None]
    assert edge_rows(front_of_architectures(space, plain), space) == []
    fixed = replace(space, embed_dim=space.embed_dim[:1], depth=(max(space.depth),))
    found = front_of_architectures(fixed, [fixed.sample_by_gene(np.random.default_rng(i)) for i in range(12)])
    assert not {row["gene"] for row in edge_rows(found, fixed)} & {"embed_dim", "depth"}


def test_images_that_cannot_tell_neighbours_apart_are_counted(space):
    drawn = [space.sample_by_gene(np.random.default_rng(i)) for i in range(8)]
    found = front_of_architectures(space, drawn, half_width=1.959964)
    values = sorted(point.value(TOP1) for point in found.points)
    row = resolution_of(found)
    images = found.points[0].measurement.conditions.num_images
    assert row["standard_error"] == pytest.approx(1)
    assert row["median_gap"] == pytest.approx(np.median(np.diff(values)))
    assert row["median_gap"] < 1
    assert row["images_needed"] == int(np.ceil(images * (1 / row["median_gap"]) ** 2))
    assert row["note"] is not None
    assert f"on {images:,} images of the search split" in row["note"]
    sharp = resolution_of(front_of_architectures(space, drawn, half_width=0.01))
    assert sharp["note"] is None


def test_nothing_is_said_of_two_networks_or_without_intervals(space):
    drawn = [space.sample_by_gene(np.random.default_rng(i)) for i in range(8)]
    assert resolution_of(front_of_architectures(space, drawn[:2])) is None
    found = front_of_architectures(space, drawn)
    bare = [FrontPoint(p.architecture, replace(p.measurement, top1_interval=None)) for p in found.points]
    assert resolution_of(replace(found, points=tuple(bare))) is None
