"""An ONNX file holds the network and nothing of the machine that wrote it, for tools that know few operators."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from bundles import CLASS_TOKEN, EVERY_OPERATOR, MEAN_POOL, OPERATORS_MEAN_POOLED, images_for, logits_of, subnet_of
from onnx import ModelProto
from onnxruntime.quantization.shape_inference import quant_pre_process

from nas.base.errors import ConfigError
from nas.latency.onnx_file import ATTENTION_OPSET, OLDEST_OPSET, check_opset, trace, write_onnx

NETWORKS = {"every": (EVERY_OPERATOR, CLASS_TOKEN), "mean": (OPERATORS_MEAN_POOLED, MEAN_POOL)}
FACTS = {"class_names": json.dumps(["Käse", "b"]), "interpolation": "bicubic"}


@pytest.fixture(scope="module", params=NETWORKS)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    write_onnx(trace(subnet_of(*NETWORKS[request.param])), path, facts=FACTS)
    return request.param, path


def inferred(path: Path) -> ModelProto:
    return onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True, data_prop=True)


@pytest.mark.slow
def test_no_tensor_has_more_than_four_axes(written: tuple[str, Path]) -> None:
    graph = inferred(written[1]).graph
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in graph.value_info}
    assert {name for node in graph.node for name in node.output} - {"logits"} <= ranks.keys()
    assert {name: rank for name, rank in ranks.items() if rank > 4} == {}
    assert all(len(weight.dims) <= 4 for weight in graph.initializer)


@pytest.mark.slow
def test_the_file_is_the_weights_and_little_else(written: tuple[str, Path]) -> None:
    model = onnx.load(written[1])
    parts = [model.graph, *model.graph.node, *model.graph.initializer, *model.graph.value_info, *model.graph.input]
    assert not any(part.doc_string or part.metadata_props for part in parts)
    assert {entry.key: entry.value for entry in model.metadata_props} == FACTS
    weights = sum(4 * p.numel() for p in subnet_of(*NETWORKS[written[0]]).parameters())
    assert written[1].stat().st_size < weights + 350 * len(model.graph.node)  # names and attributes
    content = written[1].read_bytes()
    for word in (b"/work", b"/home", b"site-packages", b".py", b"torch.ops", str(Path.cwd()).encode()):
        assert word not in content, word


@pytest.mark.slow
@pytest.mark.skipif(
    onnxruntime.__version__.startswith("1.21."), reason="its shape inference stops at a Concat that torch 2.8 writes"
)
def test_onnx_runtime_can_prepare_every_operator_for_quantisation(written: tuple[str, Path], tmp_path: Path) -> None:
    name, path = written
    quant_pre_process(path, tmp_path / "prepared.onnx")
    images = images_for(NETWORKS[name][1])
    session = onnxruntime.InferenceSession(tmp_path / "prepared.onnx", providers=["CPUExecutionProvider"])
    logits = session.run(["logits"], {"images": images.numpy()})[0]
    np.testing.assert_allclose(logits, logits_of(subnet_of(*NETWORKS[name]), images).numpy(), rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(onnxruntime.__version__.startswith("1.21."), reason="knows no opset after 22")
def test_attention_of_the_newest_opset_is_none_that_onnx_runtime_takes_for_its_own(tmp_path: Path) -> None:
    subnet, path = subnet_of(*NETWORKS["mean"]), tmp_path / "m.onnx"
    try:
        write_onnx(trace(subnet), path, opset=ATTENTION_OPSET)
    except ConfigError as error:
        pytest.skip(error.message)
    assert not {node.op_type for node in onnx.load(path).graph.node} & {"Attention", "RotaryEmbedding"}
    quant_pre_process(path, tmp_path / "prepared.onnx", skip_optimization=True)
    session = onnxruntime.InferenceSession(tmp_path / "prepared.onnx", providers=["CPUExecutionProvider"])
    images = images_for(MEAN_POOL)
    logits = session.run(["logits"], {"images": images.numpy()})[0]
    np.testing.assert_allclose(logits, logits_of(subnet, images).numpy(), rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("opset", [18, 20, 21])
def test_the_opset_is_the_one_that_was_asked_for(opset: int, tmp_path: Path) -> None:
    subnet, images = subnet_of(*NETWORKS["every"]), images_for(CLASS_TOKEN, batch=5)
    write_onnx(trace(subnet), tmp_path / "m.onnx", opset=opset)
    assert [(entry.domain, entry.version) for entry in onnx.load(tmp_path / "m.onnx").opset_import] == [("", opset)]
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    logits = session.run(["logits"], {"images": images.numpy()})[0]
    np.testing.assert_allclose(logits, logits_of(subnet, images).numpy(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("opset", [-1, 0, 17, 99])
def test_an_opset_that_cannot_be_written_is_refused_with_those_that_can(opset: int) -> None:
    with pytest.raises(ConfigError, match=f"ONNX opset {opset} cannot be written") as caught:
        check_opset(opset)
    assert f"write {OLDEST_OPSET} to " in str(caught.value.hint)
    assert torch.__version__ in str(caught.value.hint)
    check_opset(None)
    check_opset(OLDEST_OPSET)
