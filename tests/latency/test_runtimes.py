import time

import numpy as np
import pytest
import torch
from small_runs import one_thread
from torch import nn

from nas.base.errors import ConfigError, EvaluationError
from nas.latency.meter import LatencyMeter, Timing, measure_alone, repeat_tau
from nas.latency.runtimes import describe, own_cores, prepare, random_subnet, torch_threads
from nas.settings.target import Target, parse_target
from nas.space.space import parse_space

EVERYTHING = """
name: everything
backbone: {image_size: 16, patch_size: 2, num_classes: 10, head_dim: 16}
embed_dim: 32
depth: 4
layers:
  num_tokens: [64, 36, 16]
  reducer: [pool, conv_pool, glad]
  attention: [dynamic, static, shared, linear]
  hallucination_ratio: [0, 0.5]
  hallucination: [copy, mix, mix_conv]
  num_heads: [2, 4]
  ffn_rank: [0.5, 1]
  mlp_ratio: [2, 4]
overrides: [{layers: first, attention: [dynamic, static]}]
"""


@pytest.fixture(autouse=True)
def _single_threaded():
    with one_thread():
        yield


def subnets(count):
    space = parse_space(EVERYTHING, "everything.yaml")
    rng = np.random.default_rng(3)
    found = [space.largest(), *(space.sample(rng) for _ in range(count - 1))]
    return [random_subnet(space.backbone, architecture) for architecture in found]


def images(batch=3):
    return torch.randn(batch, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def outputs(text, model):
    program = prepare(parse_target(text), model, images())
    with torch.inference_mode():
        return torch.as_tensor(program()).float()


@pytest.mark.parametrize("count", [12])
@pytest.mark.parametrize("text", ["torch-cpu", "torch-cpu-packed"])
def test_a_torch_target_computes_what_the_subnet_computes(text, count):
    for model in subnets(count):
        with torch.inference_mode():
            expected = model(images())
        torch.testing.assert_close(outputs(text, model), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("text", ["torch-cpu:precision=bf16", "torch-cpu-packed:precision=bf16"])
def test_a_bf16_target_computes_it_in_bf16(text):
    for model in subnets(8):
        with torch.inference_mode():
            expected = model(images())
        found = outputs(text, model)
        assert not torch.equal(found, expected)
        assert (found - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime-cpu", "openvino-cpu"])
def test_an_exported_target_computes_what_the_subnet_computes(runtime):
    pytest.importorskip(runtime.partition("-")[0])
    for model in subnets(2):
        with torch.inference_mode():
            expected = model(images())
        torch.testing.assert_close(outputs(runtime, model), expected, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_a_target_in_eight_bits_computes_nearly_what_the_subnet_computes():
    for model in subnets(2):
        with torch.inference_mode():
            expected = model(images())
        found = outputs("onnxruntime-cpu:precision=int8", model)
        assert 0 < (found - expected).abs().max() < 0.1 * expected.abs().max()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("runtime", ["torch-cuda", "torch-cuda-graph"])
def test_a_cuda_target_computes_what_the_subnet_computes(runtime):
    for model in subnets(4):
        with torch.inference_mode():
            expected = model(images())
        torch.testing.assert_close(outputs(runtime, model).cpu(), expected, rtol=0, atol=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("runtime", ["torch-cuda", "torch-cuda-graph"])
def test_a_card_is_timed_by_events_that_hold_the_whole_pass(runtime):
    (subnet,) = subnets(1)
    few, many = (LatencyMeter(subnet, (3, 16, 16), batch, Target(runtime=runtime)) for batch in (64, 4096))
    few_ms, many_ms = few.calibrate(9), many.calibrate(9)
    assert 0 < few_ms < many_ms < 10_000


@pytest.mark.parametrize("text", ["torch-cpu-packed", "torch-cpu:precision=bf16", "torch-cpu"])
def test_a_target_leaves_the_model_as_it_was(text):
    (model,) = subnets(1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    kinds = [type(part) for part in model.modules()]
    outputs(text, model)
    assert [type(part) for part in model.modules()] == kinds
    for name, value in model.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name])


def test_what_cannot_be_made_ready_is_an_error_of_this_model():
    with pytest.raises(EvaluationError, match="only a Subnet"):
        prepare(parse_target("onnxruntime-cpu"), nn.Flatten(), images())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_is_told():
    with pytest.raises(ConfigError, match="no CUDA device"):
        prepare(parse_target("torch-cuda"), nn.Flatten(), images())


def test_conditions_name_the_runtime_the_precision_and_a_version_that_is_not_torchs():
    assert describe(parse_target("torch-cpu")) == "torch-cpu"
    assert describe(parse_target("torch-cpu:batch=3,precision=bf16")) == "torch-cpu bf16"
    assert describe(parse_target("onnxruntime-cpu")).startswith("onnxruntime-cpu 1.")
    assert describe(parse_target("onnxruntime-cpu:precision=int8")).startswith("onnxruntime-cpu int8 1.")


def test_threads_are_as_before_after_a_block():
    with torch_threads(2):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 1


def test_cores_are_as_before_after_a_block():
    import os

    before = os.sched_getaffinity(0)
    with own_cores(parse_target("torch-cpu")) as cores:
        if len(before) > 1:
            assert len(cores) == 1
            assert os.sched_getaffinity(0) == set(cores) <= before
    assert os.sched_getaffinity(0) == before


class Slowed(nn.Module):
    """A model and, four times over, the work that it is."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        for _ in range(4):
            self.model(x)
        return self.model(x)


def test_a_model_that_was_slowed_down_is_found_out():
    model = nn.Sequential(nn.Flatten(), *(nn.Linear(768, 768) for _ in range(4)))
    meter = LatencyMeter(model, (3, 16, 16), 64)
    plain, slowed = measure_alone(meter, [model, Slowed(model)], 8).timings
    assert slowed.interval_ms[0] > plain.interval_ms[1]
    assert not plain.ties(slowed)


def timing(low, median, high, passes=(1.0, 1.0)):
    return Timing(median, (low, high), passes, 9)


def test_intervals_that_overlap_are_ties_and_wide_ones_noise():
    assert timing(1, 2, 3).ties(timing(3, 4, 5))
    assert not timing(1, 2, 3).ties(timing(3.1, 4, 5))
    assert not timing(0.99, 1, 1.01).is_noisy
    assert timing(0.99, 1, 1.03).is_noisy
    assert timing(0.97, 1, 1.01).is_noisy


def test_an_order_that_repeats_has_tau_one_and_one_that_turns_round_minus_one():
    same = [timing(1, 1, 1, (i, i + 0.5)) for i in range(4)]
    turned = [timing(1, 1, 1, (i, -i)) for i in range(4)]
    assert repeat_tau(same) == 1
    assert repeat_tau(turned) == -1
    assert repeat_tau(same[:1]) is None


class Jumpy(nn.Module):
    """Takes turns at being fast and slow, so that its median is not known soon."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        end = time.perf_counter() + (0.006 if self.calls % 4 < 2 else 0.03)
        while time.perf_counter() < end:
            pass
        return x


class Steady(Jumpy):
    def forward(self, x):
        end = time.perf_counter() + 0.006
        while time.perf_counter() < end:
            pass
        return x


def test_rounds_go_on_for_what_is_not_known_and_end_with_the_budget():
    told = []
    meter = LatencyMeter(Steady(), (3, 4, 4), 1)
    readings = measure_alone(meter, [Jumpy()], 4, lambda done, of: told.append((done, of)))
    (found,) = readings.timings
    assert found.rounds == 12
    assert found.is_noisy
    assert told == [(i, 4 if i <= 4 else 12) for i in range(1, 13)]
    assert readings.timed(["abc"])[0].noisy
