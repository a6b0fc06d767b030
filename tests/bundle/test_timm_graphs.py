"""Graphs that other programs make of a bundle hold for any number of images, and are the network; timm's ViT beside."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from bundles import CLASS_TOKEN, EVERY_OPERATOR, MEAN_POOL, OPERATORS_MEAN_POOLED, export, subnet_of
from torch import Tensor
from torch.torch_version import TorchVersion
from torchvision.models.feature_extraction import create_feature_extractor

from nas.base.errors import ArchitectureError

FX = pytest.mark.skipif(
    TorchVersion(torch.__version__) < "2.14",
    reason="torch.fx of torch 2.8 records no eye and no conv2d of symbols; of 2.14 it does",
)
NETWORKS = {"every": (EVERY_OPERATOR, CLASS_TOKEN), "every mean": (OPERATORS_MEAN_POOLED, MEAN_POOL)}
GRAPHS: dict[str, Callable[[Any, Tensor], Any]] = {
    "torch.jit.trace": lambda model, x: torch.jit.trace(model, x),
    "torch.fx": lambda model, _: torch.fx.symbolic_trace(model),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graphs")
    for name, (architecture, backbone) in NETWORKS.items():
        export(subnet_of(architecture, backbone), folder / name)
    return folder


def images(count: int) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize(
    ("name", "graph"),
    [
        ("every mean", "torch.jit.trace"),
        pytest.param("every mean", "torch.fx", marks=FX),
        pytest.param("every", "torch.fx", marks=FX),
        pytest.param("every", "torch.jit.trace", marks=pytest.mark.slow),  # which traces twice
    ],
)
def test_a_graph_is_the_network_for_any_number_of_images(name: str, graph: str, grad: bool, folder: Path) -> None:
    model = timm.create_model(f"local-dir:{folder / name}", pretrained=True).eval()
    for count in (2, 70):  # of 70, a CPU that only infers takes some at a time
        with warnings.catch_warnings(), torch.set_grad_enabled(grad):
            warnings.simplefilter("ignore")  # of torch.jit: deprecated, and shapes that are numbers to Python
            found = GRAPHS[graph](model, images(3))(images(count))
        with torch.no_grad():
            torch.testing.assert_close(found, model(images(count)))


@FX
@pytest.mark.filterwarnings("ignore:strides that are no powers of two")
def test_features_are_taken_by_the_names_of_timms_vit(folder: Path) -> None:
    """Torchvision's extractor and timm's `feature_cls="fx"`."""
    x, source = images(5), f"local-dir:{folder / 'every'}"
    model = timm.create_model(source, pretrained=True).eval()
    with torch.no_grad():
        found = create_feature_extractor(model, ["blocks.1", "norm"])(x)
        getter, by_graph = (
            timm.create_model(source, pretrained=True, features_only=True, out_indices=[1, 8], feature_cls=kind).eval()(
                x
            )
            for kind in ("getter", "fx")
        )
        torch.testing.assert_close(found["norm"], model.forward_features(x))
        for feature_map, tokens in zip(getter, [found["blocks.1"], by_graph[1]], strict=True):
            torch.testing.assert_close(feature_map.flatten(2).transpose(1, 2), tokens[:, 1:])


@FX
def test_a_graph_of_fx_takes_no_mask_and_says_so(folder: Path) -> None:
    graph = torch.fx.symbolic_trace(timm.create_model(f"local-dir:{folder / 'every'}", pretrained=True).eval())
    for mask, causal in ((torch.ones(65, 65, dtype=torch.bool), False), (None, True)):
        with pytest.raises(ArchitectureError, match=r"a graph made by torch\.fx takes images alone"):
            graph(images(2), mask, causal)
