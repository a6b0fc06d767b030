"""From a finished run to a model bundle that says what the table says."""

import json
import shutil

import pytest
import timm
import torch
from small_runs import command

from nas.arch import cost
from nas.arch.architecture import Architecture
from nas.base.progress import Reporter
from nas.jobs.session import reopen
from nas.runs.directory import RunDirectory, space_of_run
from nas.runs.front import ParetoFront


def test_exported_model_is_the_one_of_the_table(finished, tmp_path):
    done = command("export", finished.folder, "--pick=knee", "--to", tmp_path / "vit", "--formats=timm,pt2")
    assert done.code == 0, done.stderr
    point = ParetoFront.from_run(finished.folder).knee()
    assert json.loads(done.stdout)["digest"] == point.digest

    model = timm.create_model(f"local-dir:{tmp_path / 'vit'}", pretrained=True).eval()
    backbone = space_of_run(RunDirectory.open(finished.folder)).backbone
    assert sum(p.numel() for p in model.parameters()) == cost.params(point.architecture, backbone)
    assert Architecture.from_json((tmp_path / "vit" / "architecture.json").read_text()) == point.architecture

    images = reopen(finished.folder, Reporter(quiet=True)).data.search
    with torch.inference_mode():
        right = model(images.normalized(slice(None))).argmax(dim=1).numpy() == images.labels
    assert 100 * float(right.sum()) / len(right) == pytest.approx(point.measurement.values["top1"], abs=1e-9)


def test_bundle_carries_the_test_accuracy_that_no_stage_before_has_seen(finished, tmp_path):
    assert "test_top1" not in (finished.folder / "front.json").read_text()
    assert command("export", finished.folder, "--pick=top1", "--to", tmp_path / "vit", "--formats=timm").code == 0
    metrics = json.loads((tmp_path / "vit" / "metrics.json").read_text())
    low, high = metrics["test_top1_ci"]
    assert low <= metrics["test_top1"] <= high
    assert metrics["test_images"] == 359
    provenance = json.loads((tmp_path / "vit" / "provenance.json").read_text())
    assert provenance["splits"] == RunDirectory.open(finished.folder).manifest.splits


@pytest.mark.parametrize(
    ("key", "said"), [("top1", "top-1 on the search split"), ("macs", "MACs"), ("params", "param")]
)
def test_export_fails_and_leaves_nothing_where_the_table_says_something_else(finished, tmp_path, key, said):
    folder = tmp_path / "r"
    shutil.copytree(finished.folder, folder)
    front = json.loads((folder / "front.json").read_text())
    for point in front["points"]:
        point[key] = point[key] - 1
    (folder / "front.json").write_text(json.dumps(front))
    done = command("export", folder, "--pick=knee", "--to", tmp_path / "vit", "--formats=timm")
    assert done.code == 1
    assert said in done.stderr
    assert not (tmp_path / "vit").exists()
