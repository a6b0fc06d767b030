"""`predict` and `validate` on the command line."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from bundles import export, small_subnet
from image_files import encode
from small_runs import command


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "vit"
    export(small_subnet(), folder, formats=("timm", "onnx"))
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name in ("a.png", "b.png", "c.png"):
        (folder / name).write_bytes(encode(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)))
    return folder


def test_the_command_prints_a_table_csv_and_json(bundle, photos):
    table = command("predict", bundle, photos, "--format=table")
    assert (table.code, "by torch" in table.stdout, "a.png" in table.stdout) == (0, True, True)
    rows = list(csv.DictReader(io.StringIO(command("predict", bundle, photos, "--top=2", "--format=csv").stdout)))
    assert [row["rank"] for row in rows] == ["1", "2"] * 3
    values = json.loads(command("predict", bundle, photos / "a.png", "--runtime=onnx").stdout)
    assert values["images"][0]["predictions"][0]["class"] == rows[0]["class"]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["{bundle}", "nowhere"], "there is no such file or folder"),
        (["{photos}", "{photos}"], "no bundle, there is no metrics.json"),
        (["{bundle}", "{photos}", "--runtime=openvino"], "has no file for --runtime openvino; it has timm, onnx"),
    ],
)
def test_wrong_words_get_one_message(bundle, photos, words, error):
    done = command("predict", *(word.format(bundle=bundle, photos=photos) for word in words))
    assert (done.code, done.stdout) == (2, "")
    assert error in done.stderr
    assert "hint: " in done.stderr
