"""Runs written by version 0.1.0 at commit eb85a5c still open: what they answer, and what can be done with them.

`old_run` has latency on two targets with a bound on the second, `retrain` and `trust`; `old_supernets` has two
supernets. Beside them is what `front` and `status` printed then.
"""

import contextlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from small_runs import command

from nas.base.metrics import LATENCY, MACS, TOP1, Objective
from nas.base.program import rename_program
from nas.initial.warm_start import copy_supernet
from nas.jobs.opening.same_run import differences
from nas.latency.device import device_name
from nas.model.supernet import Supernet
from nas.runs.directory import RunDirectory, space_of_run
from nas.runs.dominance import hypervolume
from nas.settings.config import RunConfig
from nas.training.trained import trained_weights

FIXTURES = Path(__file__).parents[1] / "fixtures"
RUNS = {"run": "old_run", "several": "old_supernets"}
CONDITIONS = {"2.14.1+cu130": torch.__version__, "cpu: AMD EPYC": device_name("cpu")}
"""Where the runs were measured, and what is said of here."""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with both runs as they lay then, `old/run` and `old/several`."""
    folder = tmp_path_factory.mktemp("home")
    for name, fixture in RUNS.items():
        shutil.copytree(FIXTURES / fixture, folder / "old" / name)
    return folder


def ask(home: Path, *words: str) -> dict:
    with contextlib.chdir(home):
        done = command(*words, "--format", "json")
    assert done.code == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("question", ["front", "status"])
def test_an_old_run_answers_as_it_did(home, name, question):
    """But for the hypervolume: it was milliseconds of the front's measuring in a box of the search's."""
    expected = json.loads((FIXTURES / f"{RUNS[name]}.{question}.json").read_text())
    found = ask(home, question, f"old/{name}")
    front = json.loads((FIXTURES / f"{RUNS[name]}.front.json").read_text())
    if "latency_ms" in {objective["name"] for objective in front["objectives"]}:
        boxes = [Objective(TOP1, 0.0), Objective(MACS, front["objectives"][1]["reference"]), Objective(LATENCY, 1.1)]
        rows = [[p["top1"], p["macs"], p["latency_ms"] / front["reference_ms"]] for p in front["points"]]
        assert found["hypervolume"] == pytest.approx(hypervolume(rows, boxes))
        expected["hypervolume"] = found["hypervolume"]
        if question == "front":
            assert found["objectives"][2]["reference"] == pytest.approx(1.1 * front["reference_ms"])
            expected["objectives"][2] = found["objectives"][2]
    if question == "front":  # by the name that the program goes by now
        expected["commands"] = [rename_program(command) for command in expected["commands"]]
    for point in found.get("points", []):
        assert point.pop("latency_ratio") == pytest.approx(point["latency_ms"] / front["reference_ms"])
        point.pop("latency_ratio_2", None)
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize("name", RUNS)
def test_an_old_run_is_shown_and_reported(home, name):
    ask(home, "show", f"old/{name}", "knee")
    ask(home, "report", f"old/{name}")
    page = (home / "old" / name / "report.html").read_text()
    assert all(point["digest"] in page for point in ask(home, "front", f"old/{name}")["points"])


def move_here(folder: Path) -> None:
    """Say in every condition that it was measured here: what is added must not meet other conditions."""
    for path in folder.rglob("*.json*"):
        text = path.read_text()
        for then, now in CONDITIONS.items():
            text = text.replace(then, now)
        path.write_text(text)


@pytest.mark.slow
def test_an_old_search_goes_on_with_its_weights_and_trials(home, tmp_path):
    shutil.copytree(home / "old", tmp_path / "old")
    move_here(tmp_path / "old")
    before = (tmp_path / "old" / "run" / "trials.jsonl").read_text()
    ask(tmp_path, "search", "old/run", "--trials", "14", "--workers", "0")
    assert (tmp_path / "old" / "run" / "trials.jsonl").read_text().startswith(before)
    assert sum(ask(tmp_path, "status", "old/run")["trials"].values()) >= 14


@pytest.mark.slow
def test_a_network_of_an_old_run_is_exported_and_kept_trainings_count(home, tmp_path):
    shutil.copytree(home / "old", tmp_path / "old")
    ask(tmp_path, "export", "old/run", "--pick", "knee", "--to", "bundle", "--formats", "timm")
    kept = sorted(path.name for path in (tmp_path / "old/run/retrain/trainings").iterdir())
    ask(tmp_path, "retrain", "old/run", "--pick", "knee", "--epochs", "1", "--workers", "0")
    assert sorted(path.name for path in (tmp_path / "old/run/retrain/trainings").iterdir()) == kept


@pytest.mark.parametrize("folder", ["old_run", "old_supernets/supernets/6020a1a2dfc2"])
def test_a_supernet_starts_from_an_old_run(folder):
    run = RunDirectory.open(FIXTURES / folder)
    supernet = Supernet(space_of_run(run))
    copy_supernet(supernet, FIXTURES / folder)
    theirs = trained_weights(run)
    assert all(torch.equal(value, theirs[name]) for name, value in supernet.state_dict().items())


def test_a_run_with_an_option_that_was_removed_is_shown_and_no_more(home, tmp_path):
    shutil.copytree(home / "old", tmp_path / "old")
    config = tmp_path / "old" / "run" / "config.yaml"
    config.write_text(config.read_text().replace("conflict_free: false", "conflict_free: true"))
    for question in ("front", "status"):
        assert ask(tmp_path, question, "old/run") == ask(home, question, "old/run")
    ask(tmp_path, "report", "old/run")
    done = command("search", tmp_path / "old" / "run", "--trials", "14", "--workers", "0")
    assert done.code == 2
    assert "train.conflict_free: this option was removed; only its default, false, is still read" in done.stderr


def test_an_unfinished_run_with_such_an_option_is_another_run(home, tmp_path):
    shutil.copytree(home / "old" / "run", tmp_path / "run")
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("images: split", "images: whole"))
    run = RunDirectory.open(tmp_path / "run")
    (line,) = differences(run, RunConfig(), {})
    assert "train.images: this option was removed" in line
