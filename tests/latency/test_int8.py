"""Eight bits: the same interface as the float file, nearly its logits, a third of its size, nothing of the machine."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from bundles import CLASS_TOKEN, EVERY_OPERATOR, MEAN_POOL, OPERATORS_MEAN_POOLED, images_for, subnet_of

from nas.latency.int8 import PRODUCTS, file_ratio, write_int8
from nas.latency.onnx_file import load_onnx, trace, write_onnx

FACTS = {"class_names": json.dumps(["Käse", "b"]), "interpolation": "bicubic"}
NETWORKS = {"every": (EVERY_OPERATOR, CLASS_TOKEN), "mean": (OPERATORS_MEAN_POOLED, MEAN_POOL)}


def files(folder: Path, name: str) -> tuple[Path, Path]:
    real, small = folder / "float.onnx", folder / "int8.onnx"
    subnet = subnet_of(*NETWORKS[name])
    for parameter in subnet.parameters():
        parameter.data.mul_(0.5)  # else activations grow so much that a softmax has one winner
    write_onnx(trace(subnet), real, facts=FACTS)
    images = images_for(NETWORKS[name][1], 24).numpy()
    write_int8(real, small, np.array_split(images, 3))
    return real, small


@pytest.fixture(scope="module", params=NETWORKS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return files(tmp_path_factory.mktemp("int8"), request.param)


@pytest.mark.slow
def test_a_file_in_eight_bits_keeps_the_contract_of_the_float_one(pair: tuple[Path, Path]) -> None:
    real, small = map(onnx.load, pair)
    for part in ("input", "output"):
        assert [str(value) for value in getattr(small.graph, part)] == [str(v) for v in getattr(real.graph, part)]
    assert {entry.key: entry.value for entry in small.metadata_props} == FACTS
    assert not any(node.doc_string or node.metadata_props for node in small.graph.node)
    assert {entry.domain for entry in small.opset_import} == {""}
    assert str(Path.cwd()).encode() not in pair[1].read_bytes()
    onnx.checker.check_model(small, full_check=True)


@pytest.mark.slow
def test_it_computes_nearly_the_same_for_any_batch(pair: tuple[Path, Path]) -> None:
    size = onnx.load(pair[0]).graph.input[0].type.tensor_type.shape.dim[2].dim_value
    real, small = map(load_onnx, pair)
    for batch in (1, 2, 7):
        images = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(batch))
        expected, found = real(images), small(images)
        assert found.shape == expected.shape
        assert 0 < (found - expected).abs().max() < 0.15 * expected.abs().max()


@pytest.mark.slow
def test_what_multiplies_with_weights_is_in_eight_bits_and_nothing_else(pair: tuple[Path, Path]) -> None:
    graph = onnx.load(pair[1]).graph
    weights = {entry.name: entry for entry in graph.initializer}
    made = {name: node for node in graph.node for name in node.output}
    found = 0
    for node in graph.node:
        inputs = [made.get(name) for name in node.input[:2]]
        if node.op_type in ("Shape", "Add"):
            continue  # beside a convolution: what is rounded for one reader is so for all
        if node.op_type not in PRODUCTS:
            assert not any(part and part.op_type == "DequantizeLinear" for part in inputs), node.name
            continue
        quantised = [part for part in inputs if part and part.op_type == "DequantizeLinear"]
        assert len(quantised) in (0, 2), node.name
        if quantised:
            kinds = [weights[part.input[0]].data_type for part in quantised if part.input[0] in weights]
            assert kinds == [onnx.TensorProto.INT8], node.name
            found += 1
        else:
            assert node.op_type == "MatMul"
            assert not weights.keys() & set(node.input), node.name
    assert found > 10


def test_the_ratio_of_two_files_is_that_of_their_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"a": 0.003, "b": 0.012}
    monkeypatch.setattr("nas.latency.int8.runner", lambda path, *_: lambda: seconds[path.name])
    assert file_ratio(tmp_path / "a", tmp_path / "b", np.zeros((1, 3, 4, 4), np.float32), 4) == (0.25,) * 3
