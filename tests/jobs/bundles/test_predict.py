"""What a bundle sees in image files is what timm's own transform and the network make of them."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from bundles import export, small_subnet
from image_files import encode
from PIL import Image

from nas.base.errors import DataError
from nas.base.progress import Reporter
from nas.bundle.opened import open_bundle
from nas.jobs.bundles.predict import MOST_NAMED, predict, prediction_rows

QUIET = Reporter(quiet=True)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "vit"
    export(small_subnet(), folder, formats=("timm", "onnx"), crop_pct=16 / 20 - 1e-12)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name, shape in {"a.png": (40, 30, 3), "b/c.jpg": (21, 60, 3), "b/d.png": (20, 20, 3)}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(encode(rng.integers(0, 256, shape, dtype=np.uint8)))
    (folder / "notes.txt").write_text("none")
    (folder / ".hidden.png").write_bytes(b"none")
    return folder


def by_timm(bundle: Path, file: Path) -> torch.Tensor:
    model = timm.create_model(f"local-dir:{bundle}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    with torch.inference_mode(), Image.open(file) as image:
        return model(transform(image.convert("RGB"))[None]).softmax(dim=1)[0]


@pytest.mark.parametrize("runtime", ["torch", "onnx"])
def test_probabilities_are_those_of_timm_s_transform_and_network(bundle, photos, runtime):
    found = predict(open_bundle(bundle, runtime), [photos], 2, QUIET)
    assert [Path(row["image"]).name for row in found["images"]] == ["a.png", "c.jpg", "d.png"]
    assert found["runtime"] == runtime
    for row in found["images"]:
        shares, numbers = by_timm(bundle, Path(row["image"])).topk(2)
        assert [one["class"] for one in row["predictions"]] == [f"class {number}" for number in numbers.tolist()]
        assert [one["probability"] for one in row["predictions"]] == pytest.approx(shares.tolist(), abs=2e-3)


def test_a_file_that_is_named_twice_counts_once_and_no_more_classes_come_than_there_are(bundle, photos):
    found = predict(open_bundle(bundle), [photos / "a.png", photos], 1000, QUIET)
    assert len(found["images"]) == 3
    opened = open_bundle(bundle)
    assert len(found["images"][0]["predictions"]) == len(opened.class_names)
    assert sum(one["probability"] for one in found["images"][0]["predictions"]) == pytest.approx(1)
    rows = prediction_rows(found)
    assert rows[0] == {"image": str(photos / "a.png"), "rank": 1, **found["images"][0]["predictions"][0]}


def test_what_is_no_image_is_named_or_left_out(bundle, photos, tmp_path):
    opened = open_bundle(bundle)
    (tmp_path / "bad.png").write_bytes(b"nothing")
    with pytest.raises(DataError) as caught:
        predict(opened, [photos, tmp_path / "bad.png"], 1, QUIET)
    assert caught.value.message == f"{tmp_path / 'bad.png'}: not an image of a known form"
    assert "--skip-bad-images" in caught.value.hint
    assert "data." not in caught.value.hint  # `predict` has no --set
    for i in range(MOST_NAMED):
        (tmp_path / f"worse{i}.png").write_bytes(b"nothing")
    with pytest.raises(DataError) as caught:
        predict(opened, sorted(tmp_path.iterdir()), 1, QUIET)
    lines = caught.value.message.split("\n    ")
    assert (lines[0], len(lines), lines[-1]) == ("11 unreadable images:", 2 + MOST_NAMED, "...")
    found = predict(opened, [photos, tmp_path / "bad.png"], 1, QUIET, skip_bad_images=True)
    assert (len(found["images"]), len(found["left_out"])) == (3, 1)
    said = []
    heard = Reporter(quiet=True)
    heard.line = lambda *words: said.append(words)
    predict(opened, [photos, tmp_path / "bad.png"], 1, heard, skip_bad_images=True)
    bad = f"{tmp_path / 'bad.png'}: not an image of a known form"
    assert said == [("images", f"1 unreadable image left out: {bad}")]
    with pytest.raises(DataError) as caught:
        predict(opened, [tmp_path / "bad.png"], 1, QUIET, skip_bad_images=True)
    assert (caught.value.message, caught.value.exit_code) == (f"no image is left: {bad}", 2)
    assert "--skip" not in caught.value.hint
    (tmp_path / "empty").mkdir()
    for path, told in ((tmp_path / "none", "there is no such file or folder"), (tmp_path / "empty", "no image in it")):
        with pytest.raises(DataError, match=told):
            predict(opened, [path], 1, QUIET)
