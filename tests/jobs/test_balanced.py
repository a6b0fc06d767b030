"""Runs after balanced accuracy: what is ranked, trained alone, tested, compared and said is that throughout."""

import io
import json

import numpy as np
import pytest
import torch
from rich.console import Console
from small_runs import command, one_thread, run_arguments

from nas.arch.architecture import Architecture
from nas.base.progress import Reporter
from nas.evaluation.accuracy import balanced_percent, count_correct, top1_percent
from nas.jobs.session import reopen_with_test
from nas.report.job_tables import retrain_table, trust_table
from nas.runs.front import ParetoFront
from nas.training.trained import load_trained

IMAGES = 40  # of the search split: one class has twice the images of another, so that the accuracies differ


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A run, what it printed, and what `trust` and `retrain` found."""
    folder = tmp_path_factory.mktemp("balanced") / "r"
    settings = ("search.objectives=[balanced_top1, macs]", f"evaluate.max_images={IMAGES}")
    done = command(*run_arguments(folder, "--trials=16", *(f"--set={text}" for text in settings)))
    assert done.code == 0, done.stderr
    trusted = command("trust", folder, "--architectures=4", "--seeds=1", "--epochs=1", "--workers=0")
    assert trusted.code == 0, trusted.stderr
    retrained = command("retrain", folder, "--pick=balanced", "--seeds=2", "--epochs=1", "--workers=0")
    assert retrained.code == 0, retrained.stderr
    return folder, done.stderr, json.loads(trusted.stdout), json.loads(retrained.stdout)


@pytest.fixture(scope="module")
def opened(home):
    """Session, test split and supernet."""
    session, test = reopen_with_test(home[0], Reporter(quiet=True))
    return session, test.open(), load_trained(session.run, session.space, session.device)


def accuracies(subnet, images):
    """Top-1 and balanced top-1, percent."""
    with one_thread():
        right = count_correct(subnet.eval(), images, batch_size=64, device=torch.device("cpu"), precision="fp32")
    return top1_percent(right), balanced_percent(right, images.labels)


def text_of(table):
    console = Console(width=160, file=io.StringIO(), color_system=None)
    console.print(table)
    return console.file.getvalue()


@pytest.mark.slow
def test_the_progress_of_the_search_names_what_it_is_after(home):
    assert "best balanced top-1" in home[1]
    assert "best top-1" not in home[1]


@pytest.mark.slow
def test_trust_ranks_by_balanced_accuracy_and_says_so(home, opened):
    folder, _, found, _ = home
    session, _, supernet = opened
    assert found["accuracy"] == "balanced top-1"
    images, differ = session.data.search.part(0, IMAGES), []
    records = {}
    for path in (folder / "trust").glob("*.json"):
        record = json.loads(path.read_text())
        records[record["digest"]] = record
    for row in found["architectures"]:
        subnet = supernet.extract(Architecture.from_dict(row["architecture"]))
        top1, balanced = accuracies(subnet, images)
        assert row["inherited_top1"] == balanced
        assert row["stand_alone_top1"] == records[row["digest"]]["balanced_top1"]
        differ.append(top1 != balanced)
    assert any(differ)
    assert "balanced top-1" in text_of(trust_table(found))


@pytest.mark.slow
def test_retrain_ranks_tests_and_shows_balanced_accuracy(home, opened):
    folder, _, _, found = home
    session, test, supernet = opened
    picked = found["picked"]
    point = ParetoFront.from_run(folder).pick("balanced")
    assert picked["digest"] == point.digest
    inherited = supernet.extract(point.architecture)
    for images, key in ((session.data.search.part(0, IMAGES), ""), (test, "test_")):
        top1, balanced = accuracies(inherited, images)
        assert picked[f"inherited_{key}top1"] == top1
        assert picked[f"inherited_{key}balanced_top1"] == balanced
        by_seed = picked[f"{key}balanced_top1_by_seed"]
        assert len(by_seed) == 2
        assert picked[f"{key}balanced_top1"] == pytest.approx(np.mean(by_seed))
        assert picked[f"{key}balanced_top1_sd"] == pytest.approx(np.std(by_seed, ddof=1))
    records = [json.loads(path.read_text()) for path in (folder / "retrain" / "trainings").glob("*.json")]
    of_picked = {record["seed"]: record["balanced_top1"] for record in records if record["digest"] == picked["digest"]}
    assert [of_picked[seed] for seed in picked["seeds"]] == picked["balanced_top1_by_seed"]
    shown = text_of(retrain_table(found))
    assert "search balanced top-1 %" in shown
    assert "test balanced top-1 %" in shown
    assert f"{picked['test_balanced_top1']:.2f}" in shown


@pytest.mark.slow
def test_compare_of_such_runs_shows_it_in_every_table(home):
    done = command("compare", home[0], home[0], "--format=table")
    assert done.code == 0, done.stderr
    assert "best balanced top-1 (%) within a budget" in " ".join(done.stdout.split())
    values = json.loads(command("compare", home[0], home[0], "--format=json").stdout)
    front = json.loads((home[0] / "front.json").read_text())["points"]
    assert values["budgets"][-1]["best_balanced_top1"] == [max(point["balanced_top1"] for point in front)] * 2
