"""The folder of an export: whole or as it was, never another's, refused before anything is written."""

import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from bundles import export, point_of

from nas.base.disk import DiskError
from nas.base.errors import ConfigError, ExportError, RunError
from nas.model.families.vit import Subnet


def test_an_earlier_bundle_is_replaced_and_survives_a_failure(small: Subnet, two_formats: Path) -> None:
    before = (two_formats / "model.safetensors").read_bytes()
    with pytest.raises(ExportError):
        export(small, two_formats, point=point_of(small) | {"macs": 1})
    assert (two_formats / "model.safetensors").read_bytes() == before
    assert (two_formats / "model.pt2").exists()

    with torch.no_grad():
        small.head.bias[0] += 1
    export(small, two_formats)
    assert (two_formats / "model.safetensors").read_bytes() != before
    assert not (two_formats / "model.pt2").exists()
    assert [path.name for path in two_formats.parent.iterdir()] == ["b"]


@pytest.mark.parametrize("key", ["run", "seed", "space_digest", "splits"])
def test_the_bundle_of_another_run_is_not_replaced(small: Subnet, two_formats: Path, key: str) -> None:
    provenance = {"run": "test-1", "seed": 3, "commands": []}
    export(small, two_formats, provenance=provenance)
    with pytest.raises(ConfigError, match=r"holds a bundle of another run: \? of test-1$") as told:
        export(small, two_formats, provenance=provenance | {key: "other"})
    assert told.value.hint == "choose a new folder, or remove that one first"
    (two_formats / "provenance.json").write_text("[")
    with pytest.raises(ConfigError, match=r"another run: \? of \?"):
        export(small, two_formats, provenance=provenance)
    assert (two_formats / "model.safetensors").exists()


def test_a_bundle_as_searched_and_one_trained_alone_do_not_replace_each_other(small: Subnet, two_formats: Path) -> None:
    origin = {"run": "test-1", "seed": 3, "commands": [], "digest": "a"}
    alone, told = {**origin, "retrain": {"seed": 4}}, list[str]()
    export(small, two_formats, provenance={**origin, "digest": "b"})
    export(small, two_formats, provenance=origin, on_step=told.append)
    assert told[0] == f"the bundle in {two_formats} is replaced once this one is whole"
    with pytest.raises(ConfigError, match="holds the bundle of a as searched, which one as retrained does not replace"):
        export(small, two_formats, provenance=alone)
    two_formats.rename(two_formats.parent / "searched")
    export(small, two_formats, provenance=alone)
    export(small, two_formats, provenance=alone)
    with pytest.raises(ConfigError, match="holds the bundle of a as retrained, which one as searched does not replace"):
        export(small, two_formats, provenance=origin)
    with pytest.raises(ConfigError, match="holds the bundle of a as retrained, which b does not replace"):
        export(small, two_formats, provenance={**alone, "digest": "b"})


def test_a_folder_with_anything_else_is_refused(small: Subnet, two_formats: Path, tmp_path: Path) -> None:
    (two_formats / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds something else: notes\.txt"):
        export(small, two_formats)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        export(small, tmp_path / "file")
    with pytest.raises(DiskError, match="below: not written"):
        export(small, tmp_path / "file" / "below")
    assert (two_formats / "notes.txt").read_text() == "mine"


def test_an_empty_folder_and_missing_parents_are_fine(small: Subnet, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    export(small, tmp_path / "empty")
    export(small, tmp_path / "a" / "b c#1")
    model = timm.create_model(f"local-dir:{tmp_path / 'a' / 'b c#1'}", pretrained=True)
    assert model.architecture == small.architecture


def test_unknown_formats_are_named_with_the_known_ones(small: Subnet, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown format 'onx', 'tflite'") as caught:
        export(small, tmp_path / "b", formats=("timm", "onx", "tflite"))
    assert caught.value.hint == 'did you mean "onnx"? known formats: timm, pt2, onnx, onnx-int8, openvino'
    with pytest.raises(ConfigError, match="no format"):
        export(small, tmp_path / "b", formats=())
    assert list(tmp_path.iterdir()) == []


def test_arguments_that_do_not_fit_are_listed_together(small: Subnet, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        export(small, tmp_path / "b", mean=[0.5], class_names=["a"], point={"digest": "x"})
    assert caught.value.message == (
        "nothing was exported: mean has 1 values for 3 channels; 1 class names for 10 classes; "
        "the row of the table lacks macs, params"
    )
    with pytest.raises(RunError, match="JSON cannot hold it"):
        export(small, tmp_path / "b", provenance={"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_missing_onnx_package_is_named(small: Subnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match="onnx and onnxruntime") as caught:
        export(small, tmp_path / "b", formats=("timm", "onnx"))
    assert caught.value.hint == "pip install onnx onnxruntime, or choose other formats"
    assert list(tmp_path.iterdir()) == []
    assert export(small, tmp_path / "b", formats=("timm",)).digest == small.architecture.digest


def test_all_missing_packages_are_named_together(
    small: Subnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"onnx format needs onnxruntime.*openvino format needs openvino"):
        export(small, tmp_path / "b", formats=("onnx", "openvino"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"license": "mine\ntags: [x]"}, "is no identifier"),
        ({"license": ""}, "is no identifier"),
        ({"opset": 18}, "no format that is written from ONNX"),
        ({"max_int8_loss": 2.0}, "no onnx-int8"),
        ({"opset": 7, "formats": ("onnx",)}, "ONNX opset 7 cannot be written"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_written(
    changes: dict[str, Any], message: str, small: Subnet, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        export(small, tmp_path / "b", **changes)
    assert list(tmp_path.iterdir()) == []
