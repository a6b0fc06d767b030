from dataclasses import replace
from unittest.mock import patch

import factories
import numpy as np
import pytest
import torch
from small_runs import digits, one_thread, tiny_space

from nas.arch import cost
from nas.base.errors import ArchitectureError, ConfigError, EvaluationError, NoResultError, OutOfMemoryError
from nas.data.loader import load_images
from nas.evaluation.accuracy import count_correct, top1_percent
from nas.evaluation.evaluator import (
    EvaluatorSetup,
    SubnetEvaluator,
    build_evaluator,
    check_latency_bounds,
    evaluator_arrays,
)
from nas.evaluation.own_metrics import AGREES, agreement
from nas.evaluation.protocol import FrontRunner, RacePlan
from nas.evaluation.racing import race_order
from nas.latency.device import device_name, resolve_device, resolve_precision
from nas.model.block import Block
from nas.model.supernet import Supernet
from nas.settings.config import DataConfig, EvaluateConfig
from nas.settings.target import parse_target
from nas.space.constraints import Constraints


@pytest.fixture(autouse=True)
def _single_threaded():
    with one_thread():
        yield


@pytest.fixture
def supernet():
    return Supernet(tiny_space(), seed=3).eval()


@pytest.fixture(scope="module")
def architectures():
    space = tiny_space()
    rng = np.random.default_rng(0)
    return [space.smallest(), space.largest(), *(space.sample(rng) for _ in range(3))]


def setup(*latencies, **config):
    return EvaluatorSetup(
        space=tiny_space(),
        config=EvaluateConfig(latency_pairs=2, latency_batch_size=8, **config),
        info=digits().info,
        device="cpu",
        precision="fp32",
        supernet_digest="0123456789ab",
        latencies=latencies,
        reference_ms={"latency_ms": 2.0, "latency_ms_2": 3.0},
    )


def test_values_are_the_accuracy_of_the_extracted_subnet_and_exact_costs(supernet, architectures):
    evaluator, images = SubnetEvaluator(setup(), supernet, digits().search), digits().search
    for architecture in architectures:
        found = evaluator.evaluate(architecture)
        subnet = supernet.extract(architecture)
        correct = count_correct(subnet, images, batch_size=64, device=torch.device("cpu"), precision="fp32")
        backbone = tiny_space().backbone
        assert found.values == {
            "top1": top1_percent(correct),
            "macs": cost.macs(architecture, backbone),
            "params": cost.params(architecture, backbone),
        }
        low, high = found.intervals["top1"]
        assert low <= found.values["top1"] <= high
        assert found.conditions == evaluator.conditions


def test_the_same_architecture_has_the_same_values_again(supernet, architectures):
    evaluator = SubnetEvaluator(setup(), supernet, digits().search)
    once = [evaluator.evaluate(architecture).values for architecture in architectures]
    assert [evaluator.evaluate(architecture).values for architecture in reversed(architectures)] == once[::-1]


def test_latency_is_measured_where_it_is_asked_for(supernet, architectures):
    evaluator = SubnetEvaluator(setup("latency_ms"), supernet, digits().search)
    largest = evaluator.evaluate(architectures[1])
    assert 0.2 < largest.values["latency_ms"] / 2.0 < 5  # the reference is the largest subnet, at 2 ms


def test_latency_is_measured_on_every_target_that_the_search_needs(supernet, architectures):
    targets = ("torch-cpu", "torch-cpu-packed:batch=4", "torch-cpu:precision=bf16")
    evaluator = SubnetEvaluator(setup("latency_ms", "latency_ms_2", targets=targets), supernet, digits().search)
    values = evaluator.evaluate(architectures[1]).values
    assert 0.2 < values["latency_ms"] / 2.0 < 5
    assert 0.2 < values["latency_ms_2"] / 3.0 < 5
    assert "latency_ms_3" not in values
    second = SubnetEvaluator(setup("latency_ms_2", targets=targets), supernet, digits().search)
    assert "latency_ms" not in second.evaluate(architectures[1]).values


def test_conditions_name_the_further_targets_that_a_search_needs(supernet):
    def target(*latencies, targets):
        return SubnetEvaluator(setup(*latencies, targets=targets), supernet, digits().search).conditions.target

    targets = ("torch-cpu", "torch-cpu-packed:batch=4")
    assert target("latency_ms", targets=targets) == "torch-cpu"
    both = target("latency_ms", "latency_ms_2", targets=targets)
    assert both == "torch-cpu; torch-cpu-packed, batch of 4, threads 1"
    assert both != target("latency_ms", "latency_ms_2", targets=("torch-cpu", "torch-cpu-packed:batch=2"))


def test_conditions_say_how_it_was_measured(supernet):
    conditions = SubnetEvaluator(setup(max_images=50), supernet, digits().search).conditions
    assert (conditions.split, conditions.num_images, conditions.latency_stage) == ("search", 50, "search")
    assert (conditions.precision, conditions.target) == ("fp32", "torch-cpu")
    assert (conditions.latency_batch_size, conditions.latency_threads) == (8, 1)
    assert (conditions.supernet, conditions.torch) == ("0123456789ab", torch.__version__)
    assert conditions.device == device_name("cpu")


def test_fewer_images_are_the_first_ones(supernet):
    data = digits().search
    evaluator = SubnetEvaluator(setup(max_images=50), supernet, data)
    assert np.array_equal(evaluator.images.images, data.images[:50])
    assert len(evaluator.images) == 50


def test_weights_that_are_not_finite_make_an_evaluation_error(supernet, architectures):
    with torch.no_grad():
        next(supernet.parameters()).fill_(torch.nan)
    with pytest.raises(EvaluationError, match="not finite"):
        SubnetEvaluator(setup(), supernet, digits().search).evaluate(architectures[1])


def test_memory_that_does_not_suffice_makes_an_evaluation_error(supernet, architectures):
    class Greedy(Supernet):
        def lend(self, _):
            raise torch.OutOfMemoryError("none left")

    with pytest.raises(EvaluationError, match="out of memory with 64 images at once: none left"):
        SubnetEvaluator(setup(), Greedy(tiny_space()), digits().search).evaluate(architectures[0])


def test_an_evaluator_over_arrays_has_the_values_of_a_direct_one(supernet, architectures):
    arrays = evaluator_arrays(supernet, digits().search)
    direct = SubnetEvaluator(setup(), supernet, digits().search)
    built = build_evaluator(setup(), arrays)
    for architecture in architectures:
        assert built.evaluate(architecture).values == direct.evaluate(architecture).values


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_arrays_shared_with_other_processes_are_read_only(supernet, architectures):
    arrays = {name: np.array(array) for name, array in evaluator_arrays(supernet, digits().search).items()}
    before = {name: array.copy() for name, array in arrays.items()}
    for array in arrays.values():
        array.flags.writeable = False
    build_evaluator(setup(), arrays).evaluate(architectures[0])
    assert all(np.array_equal(arrays[name], array) for name, array in before.items())


def test_an_evaluator_gets_no_test_image_and_needs_none(supernet, architectures):
    data, test = load_images(DataConfig(), 8, 0)
    arrays = evaluator_arrays(supernet, data.search)
    given = {image.tobytes() for image in arrays["images"]}
    assert given == {image.tobytes() for image in data.search.images}
    assert not given & {image.tobytes() for image in test.open().images}
    build_evaluator(setup(), arrays).evaluate(architectures[0])


def test_batch_of_the_latency_measurement_goes_by_the_image_size():
    from dataclasses import replace

    small = replace(setup(), config=EvaluateConfig())
    backbone = replace(small.space.backbone, image_size=128, patch_size=32)
    assert small.batch_of(small.target) == 64
    assert replace(small, space=replace(small.space, backbone=backbone)).batch_of(small.target) == 1
    assert setup().batch_of(small.target) == 8
    assert setup().batch_of(parse_target("torch-cpu:batch=3")) == 3


# --- device and precision ---


def test_the_processor_is_used_where_it_is_asked_for():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert device_name("cpu").startswith("cpu: ")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none_is_a_clear_error():
    with pytest.raises(ConfigError, match="torch sees no CUDA device") as caught:
        resolve_device("cuda")
    assert "--device cpu" in caught.value.hint


@pytest.mark.parametrize("macs", [1, 10**12])
def test_precision_is_what_is_asked_for(macs):
    for wanted in ("fp32", "bf16"):
        assert resolve_precision(wanted, torch.device("cpu"), macs) == wanted


def test_automatic_precision_is_bf16_for_large_networks_on_hardware_that_has_it():
    cpu = torch.device("cpu")
    assert resolve_precision("auto", cpu, 10**6) == "fp32"
    expected = "bf16" if torch.cpu._is_avx512_bf16_supported() else "fp32"
    assert resolve_precision("auto", cpu, 10**9) == expected


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_architecture_that_is_not_beaten_has_the_answers_it_has_without_a_race(supernet, architectures, precision):
    """The order of the images and the batches they come in must not change a single answer."""
    evaluator = SubnetEvaluator(replace(setup(), precision=precision), supernet, digits().search)
    alone = [evaluator.evaluate(architecture) for architecture in architectures]
    worst = min(alone, key=lambda found: found.values["top1"])
    order = race_order([found.correct for found in alone], len(evaluator.images))
    plan = RacePlan((FrontRunner(0, {"macs": 0.0}, worst.correct),), *order)
    for architecture, found in zip(architectures, alone, strict=True):
        raced = evaluator.evaluate(architecture, plan)
        assert raced.beaten_by is None
        assert raced.correct == found.correct
        assert raced.values == found.values


def test_a_beaten_architecture_saves_images(supernet, architectures):
    evaluator = SubnetEvaluator(setup(), supernet, digits().search)
    alone = [evaluator.evaluate(architecture) for architecture in architectures]
    order = race_order([found.correct for found in alone], len(evaluator.images))
    always_right = np.packbits(np.ones(len(evaluator.images), dtype=bool)).tobytes()
    beaten = evaluator.evaluate(architectures[0], RacePlan((FrontRunner(7, {"macs": 0.0}, always_right),), *order))
    assert beaten.beaten_by == 7
    assert beaten.conditions.num_images == 64 < len(evaluator.images)
    assert "top1" not in beaten.values


# --- many at once ---


def candidates(evaluator, seed, num_front_runners):
    """Architectures of which some begin alike, each with a plan of its own or none."""
    space, rng = tiny_space(), np.random.default_rng(seed)
    drawn = [space.sample(rng) for _ in range(12)]
    drawn += [space.mutate(one, rng) for one in drawn]
    alone = [evaluator.evaluate(architecture) for architecture in drawn[:6]]
    order = race_order([found.correct for found in alone], len(evaluator.images))
    right = np.packbits(rng.random(len(evaluator.images)) < 0.4).tobytes()
    runners = [
        FrontRunner(100 + i, {"macs": alone[i].values["macs"]}, alone[i].correct if i % 2 else right)
        for i in range(num_front_runners)
    ]
    return [
        (one, None if rng.random() < 0.2 else RacePlan(tuple(runners[: 1 + int(rng.integers(len(runners)))]), *order))
        for one in drawn
    ]


def same(one, other):
    assert replace(one, seconds=0.0) == replace(other, seconds=0.0)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("images", [None, 50])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_many_at_once_have_what_each_has_alone(supernet, precision, images, seed):
    evaluator = SubnetEvaluator(replace(setup(max_images=images), precision=precision), supernet, digits().search)
    asked = candidates(evaluator, seed, 4)
    alone = [evaluator.evaluate(*one) for one in asked]
    if images is None:
        assert 0 < sum(found.beaten_by is not None for found in alone) < len(alone)
    together = evaluator.evaluate_many(asked)
    shuffled = np.random.default_rng(seed).permutation(len(asked))
    again = evaluator.evaluate_many([asked[i] for i in shuffled])
    for i, found in enumerate(alone):
        same(found, together[i])
        same(found, again[list(shuffled).index(i)])
        assert together[i].seconds > 0


def test_answers_are_in_the_order_of_the_images_however_few_there_are(supernet, architectures):
    evaluator = SubnetEvaluator(setup(max_images=40), supernet, digits().search)
    found = [evaluator.evaluate(architecture) for architecture in architectures]
    plan = RacePlan((FrontRunner(0, {"macs": 0.0}, found[0].correct),), *race_order([f.correct for f in found], 40))
    for architecture, whole in zip(architectures, found, strict=True):
        same(evaluator.evaluate(architecture, plan), whole)


def test_who_fails_fails_alone(supernet):
    """Whatever is wrong with some: not in the space, logits that are not finite, a layer that raises, memory."""
    evaluator = SubnetEvaluator(setup(), supernet, digits().search)
    asked = candidates(evaluator, 4, 2)
    expected = [evaluator.evaluate(*one) for one in asked]
    with torch.no_grad():
        supernet.get_parameter("blocks.1.norm1.weight")[16:] = torch.nan  # of who is 24 channels wide
    evaluator = SubnetEvaluator(setup(), supernet, digits().search)
    *found, unknown = evaluator.evaluate_many([*asked, (factories.plain(), None)])
    assert isinstance(unknown, ArchitectureError)
    assert {one.embed_dim for one, _ in asked} == {16, 24}
    for (one, _), whole, now in zip(asked, expected, found, strict=True):
        if one.embed_dim == 24:
            assert isinstance(now, EvaluationError)
            assert "logits of images 0 to" in str(now)
        else:
            same(whole, now)


@pytest.mark.parametrize("error", [ValueError("broken"), torch.OutOfMemoryError("none left")])
def test_a_layer_that_raises_in_a_group_is_asked_again_for_each_alone(supernet, error):
    evaluator = SubnetEvaluator(setup(), supernet, digits().search)
    asked = [one for one in candidates(evaluator, 5, 2) if one[0].depth == 2]
    expected = [evaluator.evaluate(*one) for one in asked]
    feed, calls = Block.feed, []

    def fail_at_times(self, x):
        calls.append(x)
        if len(calls) % 3 == 1 and len(calls) < 12:
            raise error
        return feed(self, x)

    with patch.object(Block, "feed", fail_at_times):
        found = evaluator.evaluate_many(asked)
    failed = [one for one in found if isinstance(one, Exception)]
    assert len(failed) < len(asked)
    kind = OutOfMemoryError if isinstance(error, torch.OutOfMemoryError) else ValueError
    assert all(isinstance(one, kind) for one in failed)
    for whole, now in zip(expected, found, strict=True):
        if not isinstance(now, Exception):
            same(whole, now)


def bounded(**bounds):
    made = setup(targets=("torch-cpu", "torch-cpu-packed:batch=2"))
    return replace(made, space=replace(made.space, constraints=Constraints(max_latency=bounds)))


def test_a_bound_that_the_smallest_network_breaks_is_refused_with_the_least_possible():
    check_latency_bounds(setup())
    check_latency_bounds(bounded(latency_ms=1e6, latency_ms_2=1e6))
    with pytest.raises(
        NoResultError, match=r"max_latency_ms is 1e-09, .* ms / 8 images \(.* ms an image\) on torch-cpu"
    ):
        check_latency_bounds(bounded(latency_ms=1e-9))
    with pytest.raises(
        NoResultError, match=r"max_latency_ms_2 is 1e-09, .* ms / 2 images .* torch-cpu-packed"
    ) as caught:
        check_latency_bounds(bounded(latency_ms=1e6, latency_ms_2=1e-9))
    assert caught.value.hint.startswith("the bound has to be above ")


def test_features_are_those_before_the_classifier_of_each_subnet_and_of_the_whole_network(supernet, architectures):
    def features(network):
        pixels = images.normalized(slice(None))
        with torch.inference_mode():
            return network.forward_head(network.forward_features(pixels), pre_logits=True)

    images = digits().search
    asked = replace(setup(batch_size=50), metrics=(AGREES,))  # several batches
    found = build_evaluator(asked, evaluator_arrays(supernet, images)).evaluate_many([(a, None) for a in architectures])
    whole = features(supernet.dense())
    for architecture, measurement in zip(architectures, found, strict=True):
        expected = agreement(features(supernet.extract(architecture)), whole)
        assert measurement.values["agreement"] == pytest.approx(expected, abs=1e-3)
    assert found[1].values["agreement"] == pytest.approx(100, abs=1e-3)  # the largest is plain here
    assert 0 < found[0].values["agreement"] < 100
