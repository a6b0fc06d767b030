"""Commands that only look, as a user types them."""

import csv
import io
import json
from pathlib import Path

import factories
import pytest
from report_runs import made_trials, make_run
from small_runs import ROOT, command, python

from nas.arch.architecture import Architecture
from nas.base.errors import RunError
from nas.data.loader import load_images
from nas.report.comparison.values import compare_runs
from nas.runs.directory import RunDirectory
from nas.runs.front import ParetoFront
from nas.settings.config import DataConfig


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_front_as_csv_has_a_row_a_point(finished):
    points = json.loads(finished.stdout)["points"]
    found = rows(command("front", finished.folder, "--format=csv").stdout)
    assert [row["digest"] for row in found] == [point["digest"] for point in points]
    assert [float(row["top1"]) for row in found] == [point["top1"] for point in points]


def test_front_as_a_table_names_every_point(finished):
    table = command("front", finished.folder, "-f", "table").stdout
    for point in json.loads(finished.stdout)["points"]:
        assert point["digest"][:4] in table


def test_bounds_leave_out_what_breaks_them(finished):
    points = json.loads(finished.stdout)["points"]
    for flag, key in (("--max-macs", "macs"), ("--max-params", "params"), ("--max-latency-ms", "latency_ms")):
        least = min(point[key] for point in points)
        kept = json.loads(command("front", finished.folder, flag, repr(least)).stdout)["points"]
        assert {point["digest"] for point in kept} == {p["digest"] for p in points if p[key] <= least}
    best = max(point["top1"] for point in points)
    kept = json.loads(command("front", finished.folder, "--min-top1", repr(best)).stdout)["points"]
    assert {point["top1"] for point in kept} == {best}


@pytest.mark.parametrize("key", ["top1", "macs", "params", "latency_ms"])
def test_front_is_sorted_best_first(finished, key):
    points = json.loads(command("front", finished.folder, "--sort", key).stdout)["points"]
    values = [point[key] for point in points]
    assert values == sorted(values, reverse=key == "top1")


def test_show_explains_an_architecture_layer_by_layer(finished):
    front = ParetoFront.from_run(finished.folder)
    for pick in ("knee", "top1", "fastest", "cheapest", front.points[0].digest, front.points[0].digest[:6]):
        done = command("show", finished.folder, pick)
        values = json.loads(done.stdout)
        point = front.pick(pick)
        assert values["digest"] == point.digest
        assert Architecture.from_dict(values["architecture"]) == point.architecture
    assert len(rows(command("show", finished.folder, "knee", "--format=csv").stdout)) == len(
        json.loads(command("show", finished.folder, "knee").stdout)["layers"]
    )
    assert front.knee().digest[:4] in command("show", finished.folder, "knee", "--format=table").stdout


def test_show_takes_an_architecture_file(finished, tmp_path):
    knee = ParetoFront.from_run(finished.folder).knee()
    path = tmp_path / "mine.json"
    path.write_text(knee.architecture.to_json())
    assert json.loads(command("show", finished.folder, path).stdout)["digest"] == knee.digest


def test_status_counts_the_trials(finished):
    values = json.loads(command("status", finished.folder).stdout)
    states = [trial.state for trial in RunDirectory.open(finished.folder).trials()]
    assert values["state"] == "finished"
    for state in ("complete", "failed", "repeated", "pruned", "running"):
        assert values["trials"][state] == states.count(state)
    assert values["training"]["step"] == values["training"]["steps"] > 0
    assert 0 < values["training"]["loss_largest"] < 5
    assert values["hypervolume"] == json.loads(finished.stdout)["hypervolume"]
    assert "finished" in command("status", finished.folder, "--format=table").stdout
    assert len(rows(command("status", finished.folder, "--format=csv").stdout)) == 1


def test_check_prints_size_and_costs_of_a_space(home):
    values = json.loads(command("check", "tiny.yaml").stdout)
    assert values["architectures"] > 100
    assert values["macs"][0] < values["macs"][1]
    assert values["params"][0] < values["params"][1]
    assert values["layers"] == [1, 2]
    assert "tiny" in command("check", "tiny.yaml", "--format=table").stdout
    assert rows(command("check", "tiny.yaml", "--format=csv").stdout)[0]["name"] == "tiny"
    fewer = json.loads(command("check", "tiny.yaml", "--set", "depth=1").stdout)
    assert fewer["architectures"] < values["architectures"]


def test_looking_imports_no_torch_and_writes_nothing(finished):
    before = {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*")}
    folder, space = str(finished.folder), str(finished.folder.parent / "tiny.yaml")
    words = [["front", folder], ["show", folder, "knee"], ["status", folder], ["check", space]]
    done = python(
        "import sys\n"
        "from nas.cli import main\n"
        f"codes = [main([*words, '--format', f]) for words in {words!r} for f in ('json', 'csv', 'table')]\n"
        "print(set(codes), sorted({'torch', 'timm', 'ray', 'optuna'} & set(sys.modules)), file=sys.stderr)\n",
        finished.folder.parent,
    )
    assert done.stderr.strip() == "{0} []"
    assert {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*")} == before


def test_doctor_answers_with_the_code_of_its_diagnosis():
    done = command("doctor", "--format=json")
    values = json.loads(done.stdout)
    assert done.code == (0 if values["healthy"] else 1)
    assert values["versions"]["torch"]
    assert len(rows(command("doctor", "--format=csv").stdout)) == len(values["checks"])


def test_compare_prints_each_format(tmp_path):
    pair = [make_run(tmp_path / name, made_trials(20, seed=seed)).path for name, seed in (("a", 0), ("b", 1))]
    found = compare_runs(*pair)
    assert json.loads(command("compare", *pair).stdout) == found
    third = make_run(tmp_path / "c", made_trials(20, seed=2)).path
    assert [group["runs"] for group in json.loads(command("compare", *pair, third).stdout)["groups"]]
    twice = command("compare", *pair, pair[0])
    assert twice.code == 2
    assert "a run is there twice" in twice.stderr
    printed = rows(command("compare", *pair, "-f", "csv").stdout)
    assert [row["run"] for row in printed] == ["a", "b"]
    assert "best top-1 (%) within a budget" in command("compare", *pair, "-f", "table").stdout
    missing = command("compare", pair[0], pair[0] / "nothing")
    assert missing.code == 2
    assert "does not exist" in missing.stderr


def test_report_writes_the_page_and_its_figures_and_names_them(tmp_path):
    run, other = (make_run(tmp_path / name, made_trials(10, seed=seed)) for name, seed in (("r", 0), ("random", 1)))
    printed = json.loads(command("report", run.path).stdout)
    assert [row["file"] for row in printed["files"]] == [
        str(path) for path in (run.report_path, run.figure_path(), run.figure_path().with_suffix(".pdf"))
    ]
    assert all(row["bytes"] > 5_000 for row in printed["files"])
    assert command("report", run.path, "--random", other.path).code == 2  # no random search on these weights


@pytest.mark.parametrize("arguments", [["--sort", "beauty"], ["--max-macs", "nan"]])
def test_misuse_of_front_is_said(finished, arguments):
    done = command("front", finished.folder, *arguments)
    assert done.code == 2
    assert done.stderr.startswith("error: ")


@pytest.mark.parametrize("pick", ["best", "ffffffffffff", "no/such.json"])
def test_a_pick_that_is_not_there_is_said_with_those_that_are(finished, pick):
    done = command("show", finished.folder, pick)
    assert (done.code, done.stdout) == (2, "")
    assert "hint: " in done.stderr


def test_bounds_that_leave_nothing_show_an_empty_front(finished):
    done = command("front", finished.folder, "--max-macs", "1")
    assert json.loads(done.stdout)["points"] == []
    points = json.loads(finished.stdout)["points"]
    least, best = min(point["macs"] for point in points), max(point["top1"] for point in points)
    assert f"no network of the front keeps the bounds: the least MACs are {least:,.0f}\n" in done.stderr
    done = command("front", finished.folder, "--max-macs", "1", "--min-top1=100")
    said = f"keeps the bounds together: the least MACs are {least:,.0f}, the highest top-1 is {best:.1f} %\n"
    assert said in done.stderr
    assert "no network of the front" not in command("front", finished.folder).stderr


def test_the_bundled_space_is_found_from_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert json.loads(command("check").stdout)["name"] == "digits"


def test_cache_lists_the_images_that_runs_share_and_sweeps_them(tmp_path, monkeypatch):
    monkeypatch.setenv("NAS_CACHE", str(tmp_path))
    found = json.loads(command("cache", "--format=json").stdout)
    assert found == {"schema_version": 1, "folder": str(tmp_path), "swept": False, "files": []}
    load_images(DataConfig(), 8, 0)
    assert "1,797" in command("cache", "--format=table").stdout
    (row,) = json.loads(command("cache", "--sweep", "--format=json").stdout)["files"]
    assert (row["images"], row["side"], row["in_use"]) == (1797, 8, False)
    assert not list(tmp_path.iterdir())


def test_a_run_of_a_similar_name_is_suggested_and_a_folder_of_runs_names_them(tmp_path, monkeypatch):
    def hint(path):
        with pytest.raises(RunError) as raised:
            RunDirectory.open(path)
        return raised.value.hint

    monkeypatch.chdir(tmp_path)
    assert hint("resluts/digits-1").startswith("start one: ")
    for name in ("digits-1", "pets-1"):
        path = Path("results", name)
        RunDirectory.create(path, manifest=factories.manifest(), space_text="", config={})
    assert hint("resluts/digits-1") == 'did you mean "results/digits-1"?'
    assert hint("digits-1") == 'did you mean "results/digits-1"?'
    guess = 'did you mean "results/digits-1"? runs beside it: results/digits-1, results/pets-1'
    assert hint("results/digts-1") == guess
    assert hint("results") == "runs in it: results/digits-1, results/pets-1"
    assert hint("results/other") == "runs beside it: results/digits-1, results/pets-1"
