"""`finalists`: the front of a run becomes one of networks that were trained on, and stays exact, whatever wins."""

import io
import json
import shutil

import pytest
import timm
import torch
from report_browser import complaints, css, needs_browser, opened
from rich.console import Console
from small_runs import TRIALS, command, one_thread, run_arguments, search_process

from nas.base.errors import ConfigError, RunError
from nas.base.progress import Reporter
from nas.evaluation.accuracy import count_correct, top1_percent
from nas.jobs.alone import space_of_one
from nas.jobs.last_choice.finalists import Contest, finalists, over_seeds
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


def test_halving_keeps_what_is_least_beaten_at_no_more_cost(chosen):
    folder, _, found = chosen
    points = {point.digest: point for point in whole(folder)}
    metric = next(o.metric for o in inherited_front(folder).objectives if o.metric.direction == "minimize")
    first = {row["digest"]: row["trained"][0] for row in found["candidates"]}
    again = {row["digest"] for row in found["candidates"] if row["trained"][1] is not None}
    assert len(again) == 3

    def beaten(digest):
        return (
            max(
                (first[o] for o in first if o != digest and points[o].value(metric) <= points[digest].value(metric)),
                default=-100.0,
            )
            - first[digest]
        )

    assert max(map(beaten, again)) <= min(beaten(digest) for digest in first if digest not in again)


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
        finalists(folder, quiet, Contest(count=1))
    unfinished = tmp_path / "r"
    shutil.copytree(folder, unfinished)
    (unfinished / "front.json").unlink()
    with pytest.raises(RunError, match="the search has not ended"):
        finalists(unfinished, quiet, Contest(count=4, epochs=1))


def test_without_epochs_a_run_chooses_them(finished, tmp_path):
    folder = tmp_path / "r"
    shutil.copytree(finished.folder, folder)
    found = json.loads(command("finalists", folder, "--count=3", "--workers=0").stdout)
    assert found["epochs"] == [1]  # the supernet had two


def test_of_several_seeds_the_median_training_stands_for_the_network(copy, chosen):
    found = json.loads(command("finalists", copy, *CHEAP, "--seeds=3").stdout)
    assert (found["seeds"], found["epochs"]) == (3, [1, 3])
    points = {point.digest: point for point in ParetoFront.from_run(copy).points}
    records = [json.loads(path.read_text()) for path in (copy / "finalists").glob("*.json")]
    for row in (row for row in found["candidates"] if row["chosen"]):
        ended = [r for r in records if r["digest"] == row["digest"] and r["epochs"] == 3]
        assert row["by_seed"] == sorted(record["top1"] for record in ended)
        assert len(row["by_seed"]) == 3
        assert row["trained"][1] == row["by_seed"][1]
        low, high = row["mean_ci"]
        assert low <= row["mean"] <= high
        if row["digest"] in points:
            about = points[row["digest"]].details[FINALIST]
            assert about["mean_ci"] == row["mean_ci"]
            (median,) = [r for r in ended if f"-seed{r['seed']}-" in about["weights"]]
            assert median["top1"] == points[row["digest"]].accuracy
    assert [row["trained"][0] for row in found["candidates"]] == [row["trained"][0] for row in chosen[2]["candidates"]]


def test_a_mean_over_seeds_has_students_interval():
    assert over_seeds([70.0]) == {}
    found = over_seeds([72.0, 70.0, 71.0])
    assert found["mean"] == pytest.approx(71)
    assert found["mean_ci"] == pytest.approx([71 - 4.302653 / 3**0.5, 71 + 4.302653 / 3**0.5])


# --- at the end of `run` ---

ASKED = (f"--trials={TRIALS}", "--finalists=4")


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """A run that ends with finalists, and what the command said."""
    folder = tmp_path_factory.mktemp("whole") / "r"
    done = command(*run_arguments(folder, *ASKED))
    assert done.code == 0, done.stderr
    return folder, done


def test_a_run_ends_with_the_finalists_that_are_asked_for(whole_run, finished):
    folder, done = whole_run
    front, run = ParetoFront.from_run(folder), RunDirectory.open(folder)
    assert all(FINALIST in point.details for point in front.points)
    found = run.front()["finalists"]
    assert (found["count"], found["epochs"], len(found["candidates"])) == (4, [1], 4)
    assert run.manifest.stage == "finished"
    assert run.manifest.finalists is None
    assert [row["digest"] for row in found["inherited_front"]] == [
        point.digest for point in inherited_front(finished.folder).points
    ]
    again = command(*run_arguments(folder, *ASKED))
    assert json.loads(again.stdout) == json.loads(done.stdout)
    assert "finished already" in again.stderr


def test_a_finished_run_gets_other_finalists_where_others_are_asked_for(whole_run, tmp_path):
    folder = tmp_path / "r"
    shutil.copytree(whole_run[0], folder)
    trials = (folder / "trials.jsonl").read_bytes()
    assert command(*run_arguments(folder, f"--trials={TRIALS}", "--finalists=2")).code == 0
    assert RunDirectory.open(folder).front()["finalists"]["count"] == 2
    assert (folder / "trials.jsonl").read_bytes() == trials


def test_a_run_has_none_where_what_they_may_cost_is_too_little(finished):
    assert "finalists none: the last would have 0 steps each, and 200 are needed" in finished.stderr
    assert "; --finalists 16 trains them anyway\n" in finished.stderr
    assert "finalists" not in RunDirectory.open(finished.folder).front()


def test_finalists_without_a_training_are_refused_before_anything_is_done(finished, tmp_path):
    words = [word for word in run_arguments(tmp_path / "r", "--finalists=4") if not word.startswith("--epochs")]
    done = command(*words, "--epochs=0", f"--init={finished.folder}")
    assert done.code == 2
    assert "--finalists 4" in done.stderr
    assert not (tmp_path / "r" / "trials.jsonl").exists()


@pytest.mark.slow
def test_a_run_killed_among_its_finalists_goes_on_with_them(whole_run, tmp_path):
    folder, words = tmp_path / "r", [*ASKED, "--set=train.checkpoint_minutes=0.0001"]
    arguments = run_arguments(folder, *words)
    with search_process(arguments, tmp_path) as process:
        while process.poll() is None and not list(folder.glob("finalists/*.json")):
            pass
        process.kill()
        process.wait()
    status = json.loads(command("status", folder, "--format=json").stdout)
    assert (status["state"], status["stage"]) == ("interrupted", "finalists")
    trials = (folder / "trials.jsonl").read_bytes()
    records = {path: path.read_bytes() for path in folder.glob("finalists/*.json")}
    done = command(*arguments)
    assert done.code == 0, done.stderr
    assert (folder / "trials.jsonl").read_bytes() == trials
    assert {path: path.read_bytes() for path in records} == records

    def chosen_of(path):
        return [(p.digest, p.accuracy) for p in ParetoFront.from_run(path).points]

    assert chosen_of(folder) == chosen_of(whole_run[0])
