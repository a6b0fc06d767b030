"""`finalists`: the front of a run becomes one of networks that were trained on, and stays exact, whatever wins."""

import io
import json
import shutil
from dataclasses import replace
from itertools import pairwise

import pytest
import timm
import torch
from report_browser import complaints, css, needs_browser, opened
from rich.console import Console
from small_runs import TRIALS, command, one_thread, search_process

from nas.base.errors import ConfigError, RunError
from nas.base.progress import Reporter
from nas.evaluation.accuracy import count_correct, top1_percent
from nas.jobs.alone import space_of_one
from nas.jobs.finalists import HALVING, best_of, candidates, epochs_within, finalists
from nas.jobs.session import reopen
from nas.model.supernet import Supernet
from nas.report.job_tables import finalists_table
from nas.report.page.data import report_data
from nas.runs.directory import RunDirectory
from nas.runs.doubts import doubts_of
from nas.runs.front import ParetoFront
from nas.runs.point import FINALIST, points_of
from nas.runs.results import results_of
from nas.space.designs import is_plain
from nas.training.trained import load_trained
from nas.training.trainer import SupernetTrainer

CPU = torch.device("cpu")
CHEAP = ("--count=6", "--epochs=3", "--workers=0")


@pytest.fixture(scope="module")
def chosen(finished, tmp_path_factory):
    """A copy of a finished run, its front before, and what `finalists` found."""
    folder = tmp_path_factory.mktemp("finalists") / "r"
    shutil.copytree(finished.folder, folder)
    before = ParetoFront.from_run(folder)
    done = command("finalists", folder, *CHEAP)
    assert done.code == 0, done.stderr
    return folder, before, json.loads(done.stdout)


@pytest.fixture
def copy(chosen, tmp_path):
    folder = tmp_path / "r"
    shutil.copytree(chosen[0], folder)
    return folder


def whole(folder):
    return points_of(RunDirectory.open(folder).trials())


def inherited_front(folder):
    return ParetoFront.from_trials(RunDirectory.open(folder).trials(), ParetoFront.from_run(folder).objectives)


@pytest.mark.parametrize("count", [2, 3, 6, 12, 100])
def test_candidates_are_spread_over_the_costs_with_the_best_of_the_front_and_the_best_plain_one(finished, count):
    measured = whole(finished.folder)
    front = ParetoFront.from_trials(
        RunDirectory.open(finished.folder).trials(), ParetoFront.from_run(finished.folder).objectives
    )
    levels = candidates(front, measured, count)
    found = [point for level in levels for point in level]
    assert len(found) == min(count, len(measured)) == len({point.digest for point in found})
    metric = next(o.metric for o in front.objectives if o.metric.direction == "minimize")
    costs = [[point.value(metric) for point in level] for level in levels if level]
    assert all(max(cheaper) <= min(dearer) for cheaper, dearer in pairwise(costs))
    on_front = {point.digest for point in front.points}
    for level in levels:
        of_level = [p for p in measured if p.digest in {x.digest for x in level}]
        assert not level or level[0].digest in on_front or not any(p.digest in on_front for p in of_level)
        plain = [point for point in level if is_plain(point.architecture)]
        assert len(level) < 3 or not plain or plain[0] in level[:2]


def test_the_front_is_of_the_trained_networks(chosen):
    folder, before, found = chosen
    front = ParetoFront.from_run(folder)
    rows = {row["digest"]: row for row in found["candidates"]}
    assert found["epochs"] == [1, 3]
    assert {point.digest for point in front.points} <= {digest for digest, row in rows.items() if row["chosen"]}
    for point in front.points:
        row, about = rows[point.digest], point.details[FINALIST]
        assert point.accuracy == row["trained"][-1]
        assert about["inherited_top1"] == row["inherited"]
        assert about["plain"] == row["plain"] == is_plain(point.architecture)
        assert point.measurement.conditions.supernet.endswith(", each trained on for 3 epochs")
    assert [row["digest"] for row in found["inherited_front"]] == [point.digest for point in before.points]
    kept = json.loads((folder / "front.json").read_text())["finalists"]
    assert kept == {key: value for key, value in found.items() if key != "schema_version"}
    assert doubts_of(RunDirectory.open(folder)) == []


def test_halving_keeps_the_best_of_every_level(chosen):
    folder, _, found = chosen
    session = reopen(folder, Reporter(quiet=True))
    front = inherited_front(session.run.path)
    rows = {row["digest"]: row for row in found["candidates"]}
    for level in candidates(front, whole(folder), 6):
        best = max(level, key=lambda point: rows[point.digest]["trained"][0])
        trained_again = [point for point in level if rows[point.digest]["trained"][1] is not None]
        assert rows[best.digest]["trained"][0] == max(rows[p.digest]["trained"][0] for p in trained_again)
        assert len(trained_again) == max(1, len(level) // 3)


def test_an_accuracy_is_that_of_the_network_trained_from_its_slice(chosen, tmp_path):
    folder, _, _ = chosen
    session = reopen(folder, Reporter(quiet=True))
    point = ParetoFront.from_run(folder).points[0]
    alone = Supernet(space_of_one(session.space, point.architecture), seed=session.config.seed)
    alone.load_slices(load_trained(session.run, session.space, session.device).state_dict())
    recipe = session.config.train.model_copy(update={"epochs": 3})
    with one_thread():
        trainer = SupernetTrainer(
            alone,
            session.data.train,
            recipe,
            seed=session.config.seed,
            device=CPU,
            precision="fp32",
            directory=tmp_path / "own",
        )
        subnet = trainer.run().extract(point.architecture).eval()
        right = count_correct(subnet, session.data.search, batch_size=50, device=CPU, precision="fp32")
    assert point.value(ParetoFront.from_run(folder).accuracy) == top1_percent(right)


def test_what_is_exported_are_the_weights_of_the_training(copy, tmp_path):
    point = ParetoFront.from_run(copy).points[0]
    done = command("export", copy, "--pick", point.digest, "--to", tmp_path / "b", "--formats=timm")
    assert done.code == 0, done.stderr
    card = (tmp_path / "b" / "README.md").read_text()
    assert "each trained on for 3 epochs" in card
    session = reopen(copy, Reporter(quiet=True))
    with one_thread():
        model = timm.create_model(f"local-dir:{tmp_path / 'b'}", pretrained=True).eval()
        right = count_correct(model, session.data.search, batch_size=50, device=CPU, precision="fp32")
    assert top1_percent(right) == point.accuracy


def test_nothing_is_trained_twice_and_what_is_lost_is_trained_again(copy, chosen):
    times = {path: path.stat().st_mtime_ns for path in (copy / "finalists").iterdir()}
    again = command("finalists", copy, *CHEAP)
    assert json.loads(again.stdout) == chosen[2]
    assert {path: path.stat().st_mtime_ns for path in (copy / "finalists").iterdir()} == times
    lost = copy / "finalists" / ParetoFront.from_run(copy).points[0].details[FINALIST]["weights"]
    kept = lost.read_bytes()
    lost.unlink()
    refused = command("export", copy, "--pick", ParetoFront.from_run(copy).points[0].digest, "--to", copy.parent / "b")
    assert refused.code == 2
    assert "Traceback" not in refused.stderr
    assert command("finalists", copy, *CHEAP).code == 0
    assert lost.read_bytes() == kept


def test_a_search_that_goes_on_withdraws_them_and_they_come_back_from_their_records(copy):
    assert command("search", copy, f"--trials={TRIALS + 4}", "--workers=0").code == 0
    front = ParetoFront.from_run(copy)
    assert not any(FINALIST in point.details for point in front.points)
    assert command("finalists", copy, *CHEAP).code == 0
    assert all(FINALIST in point.details for point in ParetoFront.from_run(copy).points)


@pytest.mark.slow
def test_ctrl_c_and_the_same_command(finished, chosen, tmp_path):
    folder = tmp_path / "r"
    shutil.copytree(finished.folder, folder)
    with search_process(["finalists", str(folder), *CHEAP], tmp_path) as process:
        while process.poll() is None and not list(folder.glob("finalists/*.json")):
            pass
        process.kill()
        process.wait()
    assert command("front", folder).code == 0
    done = command("finalists", folder, *CHEAP)
    assert json.loads(done.stdout) == chosen[2]


def test_the_table_says_what_became_of_each(chosen):
    found = chosen[2]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(finalists_table(found))
    text = console.export_text()
    assert all(row["digest"] in text for row in found["candidates"])
    assert text.count("chosen") >= 1
    assert max(map(len, text.splitlines())) <= 80


def test_the_page_has_every_candidate(chosen):
    folder, _, found = chosen
    data = report_data(results_of(RunDirectory.open(folder)))
    assert data["finalists"] == {key: value for key, value in found.items() if key != "schema_version"}
    page = (folder / "report.html").read_text()
    assert all(row["digest"] in page for row in found["candidates"])


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_shows_them_at_any_width(chosen, browser, width):
    folder, _, found = chosen
    opened(browser, RunDirectory.open(folder), width)
    assert complaints(browser) == []
    (shown,) = css(browser, "#finalists")
    assert all(row["digest"] in shown.text for row in found["candidates"])
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_what_cannot_be_is_refused(chosen, tmp_path):
    folder = chosen[0]
    quiet = Reporter(quiet=True)
    with pytest.raises(ConfigError, match="nothing to choose from"):
        finalists(folder, quiet, count=1, epochs=1, workers=0)
    unfinished = tmp_path / "r"
    shutil.copytree(folder, unfinished)
    (unfinished / "front.json").unlink()
    with pytest.raises(RunError, match="the search has not ended"):
        finalists(unfinished, quiet, count=4, epochs=1, workers=0)


def test_the_best_of_a_level_go_on_and_what_failed_does_not(finished):
    level = whole(finished.folder)[:6]
    accuracies = {point.digest: accuracy for point, accuracy in zip(level, (3.0, 9.0, 1.0, 7.0, 5.0), strict=False)}
    assert best_of(level, accuracies, 1 / 3) == [level[1], level[3]]
    assert best_of(level, accuracies, 1) == [level[1], level[3], level[4], level[0], level[2]]
    assert best_of(level[:2], accuracies, 1 / 3) == [level[1]]
    assert best_of(level[5:], accuracies, 1) == []


def test_the_best_plain_vit_that_was_measured_is_a_candidate_of_its_level(finished):
    front = inherited_front(finished.folder)
    on_front = {point.digest for point in front.points}
    rest = [point for point in whole(finished.folder) if point.digest not in on_front]
    plain = [point for point in rest if is_plain(point.architecture)]
    worst = [replace(p, measurement=replace(p.measurement, top1=0.1 * i)) for i, p in enumerate(plain, start=1)]
    others = [point for point in rest if point not in plain]
    assert worst
    assert len(others) > 3
    (level,) = candidates(front, [*others, *worst], 4)
    assert level[1] == worst[-1]


@pytest.mark.parametrize("budget", [1, 100, 1_000, 12_345])
def test_without_epochs_the_trainings_fill_their_budget(budget):
    macs = [[4.0, 5.0, 6.0], [], [10.0, 20.0]]

    def spent(epochs):
        return epochs / HALVING * sum(map(sum, macs)) + epochs * (5 + 15)

    epochs = epochs_within(budget, macs)
    assert spent(epochs) <= budget or epochs == 1
    assert spent(epochs + 1) > budget


def test_without_epochs_a_run_chooses_them(finished, tmp_path):
    folder = tmp_path / "r"
    shutil.copytree(finished.folder, folder)
    found = json.loads(command("finalists", folder, "--count=3", "--workers=0").stdout)
    assert found["epochs"] == [1]  # the supernet had two
