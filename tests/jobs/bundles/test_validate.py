"""A bundle has, measured again from its files, the accuracy that is on its card."""

import csv
import importlib
import io
import json
import shutil

import numpy as np
import pytest
from image_files import write_folder
from small_runs import command

from nas.base.errors import ConfigError
from nas.base.progress import Reporter
from nas.bundle.opened import open_bundle
from nas.jobs.bundles.validate import SPLITS, validate

QUIET = Reporter(quiet=True)


@pytest.fixture(scope="module")
def bundle(finished, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "vit"
    done = command("export", finished.folder, "--pick=top1", "--to", folder, "--formats=timm,onnx")
    assert done.code == 0, done.stderr
    return folder


@pytest.mark.parametrize("runtime", ["torch", "onnx"])
def test_the_test_split_gives_the_number_of_the_card(bundle, runtime):
    table = json.loads((bundle / "metrics.json").read_text())
    found = validate(open_bundle(bundle, runtime), "digits", "test", (), QUIET)
    assert (found["top1"], found["images"]) == (table["test_top1"], 359)
    assert found["top1_ci"] == pytest.approx(table["test_top1_ci"])
    assert found["card_test_top1"] == found["top1"]
    assert found["card_precision"] == "fp32"
    package = "onnxruntime" if runtime == "onnx" else "torch"
    assert found["runtime_version"] == f"{package} {importlib.import_module(package).__version__}"
    assert found["notes"] == ["these are the test split that is on its card"]
    assert sum(row["right"] for row in found["classes"]) == round(3.59 * found["top1"])
    assert sum(row["images"] for row in found["classes"]) == 359
    assert found["balanced_top1"] == pytest.approx(np.mean([row["top1"] for row in found["classes"]]))


def test_in_eight_bits_the_figure_of_the_card_is_that_of_eight_bits(finished, tmp_path):
    done = command("export", finished.folder, "--pick=top1", "--to", tmp_path / "vit", "--formats=onnx,onnx-int8")
    assert done.code == 0, done.stderr
    table = json.loads((tmp_path / "vit" / "metrics.json").read_text())
    table["int8"]["test_top1"] = table["test_top1"] - 25.0
    (tmp_path / "vit" / "metrics.json").write_text(json.dumps(table))
    found = {
        name: validate(open_bundle(tmp_path / "vit", name), "digits", "test", (), QUIET)
        for name in ("onnx", "onnx-int8")
    }
    assert found["onnx"]["card_test_top1"] == table["test_top1"]
    assert found["onnx-int8"]["card_test_top1"] == table["int8"]["test_top1"]
    assert [row["card_precision"] for row in found.values()] == ["fp32", "int8"]
    assert "that of the bundle's run" in " ".join(command("validate", "--help").stdout.replace("│", "").split())


def test_every_split_says_what_it_is_to_the_run(bundle):
    opened = open_bundle(bundle)
    notes = {split: validate(opened, "digits", split, (), QUIET)["notes"] for split in SPLITS}
    assert notes["train"] == ["these are the images that trained it"]
    assert notes["search"] == ["these are the images that chose the architecture"]
    assert "all images" in notes["all"][0]
    assert validate(opened, "digits", "all", (), QUIET)["images"] == 1797
    other = validate(opened, "digits", "test", (), QUIET, seed=1)["notes"]
    assert other == ["these are not the images of its run's splits: whether it was trained on some is not known"]


def test_classes_go_by_name_and_foreign_ones_are_refused(bundle, tmp_path):
    opened = open_bundle(bundle)
    write_folder(tmp_path / "some", 3, classes=("7", "3"))
    found = validate(opened, f"folder:{tmp_path / 'some'}", "all", (), QUIET)
    assert [(row["class"], row["images"]) for row in found["classes"]] == [("3", 3), ("7", 3)]
    write_folder(tmp_path / "pets", 10)
    with pytest.raises(ConfigError, match=r"3 classes that .* does not know: cat, dog, owl"):
        validate(opened, f"folder:{tmp_path / 'pets'}", "test", (), QUIET)
    damaged = tmp_path / "pets" / "cat" / "0.png"  # what is decoded is refused for that
    damaged.write_bytes(b"nothing")
    for split in ("test", "all"):
        with pytest.raises(ConfigError, match="3 classes that"):
            validate(opened, f"folder:{tmp_path / 'pets'}", split, (), QUIET)


def test_foreign_classes_that_are_too_small_are_left_out_and_others_refused_before_an_image_is_read(bundle, tmp_path):
    opened, spec, skip = open_bundle(bundle), f"folder:{tmp_path}", ["data.skip_small_classes=true"]
    write_folder(tmp_path, 10, classes=("3", "7"))
    write_folder(tmp_path, 1, classes=("owl",))
    assert {row["class"] for row in validate(opened, spec, "test", skip, QUIET)["classes"]} == {"3", "7"}
    (tmp_path / "3" / "0.png").write_bytes(b"nothing")  # what is decoded is refused for that
    with pytest.raises(ConfigError, match=r"1 class that .* does not know: owl"):
        validate(opened, spec, "all", skip, QUIET)
    shutil.rmtree(tmp_path / "7")
    with pytest.raises(ConfigError, match=r"1 class that .* does not know: owl"):
        validate(opened, spec, "test", skip, QUIET)


def test_data_without_a_test_split_has_none(bundle):
    with pytest.raises(ConfigError, match="has no test split"):
        validate(open_bundle(bundle), "digits", "test", ["data.test_fraction=0"], QUIET)


def test_the_command_prints_a_table_and_a_row_a_class(bundle):
    table = command("validate", bundle, "--format=table")
    assert table.code == 0, table.stderr
    assert "These are the test split that is on its card." in table.stdout
    rows = list(csv.DictReader(io.StringIO(command("validate", bundle, "--format=csv").stdout)))
    assert [row["class"] for row in rows] == list("0123456789")
    done = command("validate", bundle, "--data=folder:nowhere")
    assert (done.code, done.stdout) == (2, "")
    assert "no such folder" in done.stderr
