"""Latency profiles; the latencies here are made from arithmetic, so that what predicts them is known."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from nas.arch import cost
from nas.base.errors import ConfigError
from nas.latency.profile import (
    OURS,
    LatencyProfile,
    Predictor,
    Score,
    design,
    features,
    mismatches,
    read_profile,
    with_scores,
)
from nas.settings.target import parse_target
from nas.space.space import parse_space

SPACE = """
name: profiled
backbone: {image_size: 16, patch_size: 2, num_classes: 10, head_dim: 16}
embed_dim: [32, 48]
depth: [2, 3, 4]
layers:
  num_tokens: [64, 36, 16]
  reducer: [pool, glad]
  attention: [dynamic, static, shared]
  hallucination_ratio: [0, 0.5]
  num_heads: [2, 4]
  ffn_rank: [0.5, 1]
  mlp_ratio: [2, 4]
overrides: [{layers: first, attention: [dynamic, static]}]
"""


@pytest.fixture(scope="module")
def space():
    return parse_space(SPACE, "profiled.yaml")


def true_latency(architecture, backbone):
    """Of a device on which written maps are dear and matrix products are cheap."""
    found = features(architecture, backbone)
    products = cost.macs(architecture, backbone)
    return 0.3 + 1e-8 * products + 6e-5 * found.get("softmax written", 0) + 0.2 * architecture.depth


def profile_of(space, latency, count=48, noise=0.0):
    rng = np.random.default_rng(0)
    measured = {
        architecture: latency(architecture, space.backbone) * (1 + noise * rng.standard_normal())
        for architecture in design(space, count, 0)
    }
    bare = LatencyProfile(
        target=parse_target("torch-cpu"),
        batch=64,
        device="cpu: a chip",
        cores=4,
        versions={"torch": "2"},
        backbone=space.backbone,
        measured=measured,
    )
    return with_scores(bare)


@pytest.fixture(scope="module")
def good(space):
    return profile_of(space, true_latency, noise=0.005)


def test_a_profile_predicts_what_macs_cannot_see(space, good):
    ours, macs = good.scores[OURS], good.scores["MACs"]
    assert ours.mape < 5 < macs.mape
    assert ours.tau > 0.95 > macs.tau
    assert good.losses == []
    rng = np.random.default_rng(77)
    unseen = [space.sample(rng) for _ in range(40)]
    predicted = Predictor(good).predict(unseen)
    true = np.array([true_latency(architecture, space.backbone) for architecture in unseen])
    assert np.mean(np.abs(predicted - true) / true) < 0.05


def test_a_profile_that_loses_to_macs_is_not_used(space, tmp_path):
    profile = profile_of(space, lambda a, backbone: 1e-6 * cost.macs(a, backbone), noise=0.05)
    assert any(line.startswith("MACs predicts with") for line in profile.losses)
    file = tmp_path / "p.json"
    profile.write(file)
    with pytest.raises(ConfigError, match=r"p\.json is not used: MACs predicts") as caught:
        read_profile(file)
    assert "search by MACs" in caught.value.hint


def test_a_baseline_wins_by_either_figure(good):
    ours = good.scores[OURS]
    for better in (Score(ours.mape / 2, ours.tau - 0.1), Score(ours.mape * 2, min(1.0, ours.tau + 1e-6))):
        assert replace(good, scores={OURS: ours, "MACs": better}).losses
    assert not replace(good, scores={OURS: ours, "MACs": Score(ours.mape * 2, ours.tau - 0.1)}).losses


def test_a_profile_reads_back_as_it_was_written_and_predicts_the_same(space, good, tmp_path):
    file = tmp_path / "deep" / "profile.json"
    good.write(file)
    again = read_profile(file)
    assert again == good
    assert again.name == good.name
    rng = np.random.default_rng(5)
    unseen = [space.sample(rng) for _ in range(5)]
    assert Predictor(again).predict(unseen) == Predictor(good).predict(unseen)


def test_profiles_of_other_measurements_have_other_names(good):
    first, ms = next(iter(good.measured.items()))
    slower = replace(good, measured=good.measured | {first: 1.01 * ms})
    assert slower.name != good.name
    assert replace(good, device="cpu: another").name != good.name


@pytest.mark.parametrize("spoil", [lambda v: v.pop("measured"), lambda v: v.update(target="what"), None])
def test_a_damaged_profile_is_told(good, tmp_path, spoil):
    file = tmp_path / "profile.json"
    values = good.to_dict()
    if spoil is None:
        file.write_text("{")
    else:
        spoil(values)
        file.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match="is no latency profile"):
        read_profile(file)
    with pytest.raises(ConfigError, match="is no latency profile"):
        read_profile(tmp_path / "nowhere.json")


def test_a_profile_is_of_one_backbone_whatever_the_classes(space, good):
    assert mismatches(good, replace(space.backbone, num_classes=1000)) == []
    (problem,) = mismatches(good, replace(space.backbone, image_size=32))
    assert problem == "image_size is 16 in the profile and 32 in the space"


def test_what_is_measured_covers_the_macs_and_is_the_same_every_time(space):
    found = design(space, 32, 0)
    assert found == design(space, 32, 0)
    assert found != design(space, 32, 1)
    assert found[:2] == [space.largest(), space.smallest()]
    assert len(set(found)) == len(found) == 32
    macs = sorted(cost.macs(architecture, space.backbone) for architecture in found)
    low, high = space.macs_range()
    widest = max(b - a for a, b in itertools.pairwise(macs))
    assert widest < 0.25 * (high - low)


def test_a_map_that_a_later_layer_takes_costs_what_one_that_nobody_takes_does_not(space):
    rng = np.random.default_rng(2)
    shared = [
        a
        for a in (space.sample(rng) for _ in range(300))
        if any(layer.attention == "shared" for layer in a.layers)
        and not any(layer.num_hallucinated for layer in a.layers)
    ]
    assert shared
    for architecture in shared:
        assert features(architecture, space.backbone).get("softmax written", 0) > 0


def test_a_conv_stem_has_features_of_its_own(space):
    patch, conv = (features(replace(space.largest(), stem=stem), space.backbone) for stem in ("patch", "conv"))
    stem, *others = cost.breakdown(replace(space.largest(), stem="conv"), space.backbone)
    outside = sum(operation.macs for operation in others if operation.layer is None)
    assert (conv["conv_stem"], conv["stem conv"], conv["outside"]) == (stem.macs, 1, outside)
    assert set(conv) - set(patch) == {"conv_stem", "stem conv"}


def test_too_few_architectures_teach_nothing(space):
    with pytest.raises(ConfigError, match="needs at least 12 architectures, got 5"):
        profile_of(space, true_latency, count=5)
