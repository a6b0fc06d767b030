"""A bundle that differs from the searched network or its row of the table is refused."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bundles import export, point_of

import nas
from nas.base.errors import ExportError
from nas.bundle.bundle import compare
from nas.model.families.vit import Subnet


@pytest.mark.parametrize(
    ("key", "wrong", "message"),
    [
        ("params", lambda n: n + 1, "timm: .* parameters, the table has"),
        ("macs", lambda n: n + 1, "FLOPs counted, the table's .* MACs make"),
        ("digest", lambda _: "0123456789ab", "the table 0123456789ab"),
        ("params", lambda n: 4 * n, r"model\.safetensors: .* bytes for .* fp32 parameters"),
    ],
)
def test_a_table_that_differs_leaves_nothing_behind(
    key: str, wrong: Callable[[Any], Any], message: str, small: Subnet, tmp_path: Path
) -> None:
    point = point_of(small)
    with pytest.raises(ExportError, match=message):
        export(small, tmp_path / "b", point=point | {key: wrong(point[key])})
    assert list(tmp_path.iterdir()) == []


def test_all_differences_are_listed_at_once(small: Subnet, tmp_path: Path) -> None:
    point = point_of(small)
    with pytest.raises(ExportError, match="3 differences") as caught:
        export(small, tmp_path / "b", point=point | {"macs": 1, "params": point["params"] - 1, "digest": "f" * 12})
    assert "1 MACs make 2" in caught.value.message


def test_a_file_that_changes_while_it_is_written_is_noticed(small: Subnet, tmp_path: Path) -> None:
    def tamper(step: str) -> None:
        if step == "timm: reload and compare":
            (path,) = tmp_path.rglob("model.safetensors")
            path.write_bytes(path.read_bytes()[:-1] + b"\x01")

    with pytest.raises(ExportError, match=r"model\.safetensors: the content is not what was written"):
        export(small, tmp_path / "b", on_step=tamper)
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_gives_nan_is_not_exported(small: Subnet, tmp_path: Path) -> None:
    with torch.no_grad():
        small.head.bias[0] = float("nan")
    with pytest.raises(ExportError, match="timm: logits differ by nan at batch size 1"):
        export(small, tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def rewrite(directory: Path, file: str, change: Callable[[Any], Any]) -> None:
    path = directory / file
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def test_weights_that_differ_from_the_network_are_noticed(small: Subnet, two_formats: Path) -> None:
    with torch.no_grad():
        small.head.bias[0] += 0.25
    with pytest.raises(ExportError, match=r"pt2: logits differ by 0\.25 at batch size 1, allowed are 0"):
        compare(two_formats, small, lambda _: None)


def test_no_file_is_loaded_that_somebody_else_wrote(small: Subnet, two_formats: Path) -> None:
    (two_formats / "model.pt2").write_bytes(b"not a model")
    (two_formats / "config.json").unlink()
    with pytest.raises(ExportError) as caught:
        compare(two_formats, small, lambda _: None)
    assert "model.pt2: the content is not what was written" in caught.value.message
    assert "config.json: missing" in caught.value.message


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "metrics.json").unlink(),
        lambda folder: (folder / "architecture.json").write_text("{}"),
        lambda folder: (folder / "metrics.json").write_text("[1"),
        lambda folder: rewrite(folder, "metrics.json", lambda t: t | {"schema_version": 99}),
        lambda folder: rewrite(folder, "metrics.json", lambda t: t | {"formats": {}}),
        lambda folder: rewrite(folder, "metrics.json", lambda t: t | {"formats": {"tflite": {}}}),
        lambda folder: rewrite(folder, "metrics.json", lambda t: t | {"macs": "many"}),
        lambda folder: rewrite(folder, "metrics.json", lambda t: t | {"backbone": {"image_size": 16}}),
    ],
)
def test_a_damaged_bundle_is_refused(damage: Callable[[Path], None], small: Subnet, two_formats: Path) -> None:
    damage(two_formats)
    with pytest.raises(ExportError, match="no bundle, or a damaged one"):
        compare(two_formats, small, lambda _: None)


def test_nothing_is_unpickled_and_a_pt2_is_loaded_only_where_it_was_just_written():
    sources = {path: path.read_text() for path in Path(nas.__file__).parent.rglob("*.py")}
    loads = [path.name for path, text in sources.items() if "torch.export.load" in text and path.name != "card.py"]
    assert loads == ["bundle.py"]
    compared = [path.name for path, text in sources.items() if re.search(r"[^_.\w]compare\(folder", text)]
    assert sorted(compared) == ["bundle.py", "export.py"]  # where it is written, and where it was written
    for path, text in sources.items():
        assert not re.search(r"import pickle|torch\.load\(|allow_pickle=True|weights_only=False", text), path
        assert text.count("np.load(") == len(re.findall(r"np\.load\([^)]*allow_pickle=False", text)), path
