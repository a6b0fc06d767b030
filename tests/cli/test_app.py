import csv
import io
import json

import pytest
import torch
from small_runs import ROOT, TINY, command, python, run_arguments

from nas.arch.architecture import Architecture
from nas.runs.directory import RunDirectory
from nas.runs.front import ParetoFront


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


# --- looking at a run ---


def test_run_prints_the_front_as_json_and_speaks_to_people_on_stderr(finished):
    values = json.loads(finished.stdout)
    assert values["schema_version"] == 1
    assert values["run"] == "r"
    assert [objective["name"] for objective in values["objectives"]] == ["top1", "macs"]
    assert 0 < values["hypervolume"] < 1
    for point in values["points"]:
        assert {
            "digest", "top1", "macs", "params", "latency_ms", "latency_ci_ms", "split", "conditions",
            "architecture",
        } <= point.keys()  # fmt: skip
        assert point["split"] == "search"
        assert Architecture.from_dict(point["architecture"]).digest == point["digest"]
        assert Architecture.from_json(json.dumps(point["architecture"])).digest == point["digest"]
    for label in ("data", "splits", "space", "device", "run", "supernet", "search", "latency", "next"):
        assert any(line.strip().startswith(label) for line in finished.stderr.splitlines()), label
    assert "export" in finished.stderr.splitlines()[-1]


def test_front_prints_what_run_printed(finished):
    done = command("front", finished.folder, "--format", "json")
    assert (done.code, json.loads(done.stdout), done.stderr) == (0, json.loads(finished.stdout), "")


def test_output_that_is_piped_is_json(finished):
    assert json.loads(command("front", finished.folder).stdout) == json.loads(finished.stdout)


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
    states = [record["state"] for record in RunDirectory.open(finished.folder).trial_records()]
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


def test_quiet_says_nothing_wherever_it_stands(home):
    for arguments in (["-q", "check", "tiny.yaml"], ["check", "tiny.yaml", "--quiet"]):
        assert command(*arguments).stderr == ""


# --- stages alone ---


def test_train_then_search_is_what_run_does(finished, tmp_path):
    start = run_arguments(tmp_path / "r")
    trained = command("train", *(word for word in start[1:] if not word.startswith("--workers")))
    assert trained.code == 0, trained.stderr
    assert trained.stdout == ""
    assert f"search {tmp_path / 'r'}" in trained.stderr
    searched = command("search", tmp_path / "r", "--trials=6", "--workers=0")
    assert searched.code == 0, searched.stderr
    assert json.loads(searched.stdout)["points"]
    assert digests(tmp_path / "r") == digests(finished.folder)[: len(digests(tmp_path / "r"))]


def digests(folder):
    return [record["digest"] for record in RunDirectory.open(folder).trial_records()]


def test_search_of_what_is_not_trained_is_refused(finished, tmp_path):
    start = run_arguments(tmp_path / "r", "--trials=1", "--set=train.lr=1e30")
    failed = command(*start)
    assert (failed.code, failed.stdout) == (2, "")
    assert "loss or gradient is not finite" in failed.stderr
    assert "hint: lower train.lr" in failed.stderr
    assert "the supernet is not trained yet" in command("search", tmp_path / "r").stderr


# --- misuse: exit 2, one message, one hint, no traceback, nothing touched (law 10) ---

BAD = {
    "unknown flag": (["run", "tiny.yaml", "--trails", "3"], "--trails"),
    "unknown command": (["serach"], "serach"),
    "no space": (["train"], "SPACE.yaml"),
    "missing space": (["run", "tinny.yaml"], "tinny.yaml"),
    "space is a folder": (["run", "."], "."),
    "bad YAML": (["run", "bad.yaml"], "bad.yaml"),
    "binary YAML": (["run", "binary.yaml"], "binary.yaml"),
    "wrong space": (["run", "wrong.yaml"], "atention"),
    "check of a wrong space": (["check", "wrong.yaml"], "atention"),
    "missing run": (["status", "nope"], "nope does not exist"),
    "front of no run": (["front", "tiny.yaml"], "tiny.yaml"),
    "show of no run": (["show", "nope", "knee"], "nope does not exist"),
    "search of no run": (["search", "nope"], "nope does not exist"),
    "export of no run": (["export", "nope", "--pick=knee", "--to=out"], "nope does not exist"),
    "wrong data folder": (["run", "tiny.yaml", "--data", "folder:nowhere"], "nowhere"),
    "wrong data kind": (["run", "tiny.yaml", "--data", "floppy:a"], "floppy"),
    "two limits": (["run", "tiny.yaml", "--trials=3", "--minutes=1"], "--trials and --minutes"),
    "unknown key": (["run", "tiny.yaml", "--set", "train.epoch=3"], "train.epoch"),
    "setting without a value": (["run", "tiny.yaml", "--set", "train.epochs"], "train.epochs"),
    "unknown key of the space": (["check", "tiny.yaml", "--set", "layers.num_head=2"], "num_head"),
    "wrong value": (["run", "tiny.yaml", "--set", "train.lr=fast"], "train.lr"),
    "negative epochs": (["run", "tiny.yaml", "--epochs=-1"], "train.epochs"),
    "negative workers": (["run", "tiny.yaml", "--workers=-1"], "--workers"),
    "no trials": (["run", "tiny.yaml", "--trials=0"], "--trials"),
    "negative seed": (["run", "tiny.yaml", "--seed=-1"], "seed"),
    "unknown sampler": (["run", "tiny.yaml", "--sampler=luck"], "sampler"),
    "unknown device": (["run", "tiny.yaml", "--device=tpu"], "device"),
    "unknown precision": (["run", "tiny.yaml", "--precision=fp8"], "precision"),
    "missing config": (["run", "tiny.yaml", "--config=none.yaml"], "none.yaml"),
    "bad config": (["run", "tiny.yaml", "--config=bad.yaml"], "bad.yaml"),
    "wrong number of classes": (["run", "tiny.yaml", "--set", "backbone.num_classes=7"], "has 10 classes"),
    "folder of something else": (["run", "tiny.yaml", "--run", "mine"], "mine is not a run"),
    "folder is a file": (["run", "tiny.yaml", "--run", "tiny.yaml"], "tiny.yaml is not a run"),
    "folder below a file": (["run", "tiny.yaml", "--run", "tiny.yaml/r"], "tiny.yaml/r"),
    "unreachable storage": (
        ["run", "tiny.yaml", "--storage=postgresql://me:secret@127.0.0.1:9/x"],
        "me:***@",
    ),
    "unreachable cluster": (["run", "tiny.yaml", "--ray-address=127.0.0.1:9"], "127.0.0.1:9"),
    "unknown format": (["check", "tiny.yaml", "--format=xml"], "--format"),
}


def assert_is_misuse(home, name, *more):
    (home / "bad.yaml").write_text("name: [tiny\nbackbone: {")
    (home / "binary.yaml").write_bytes(bytes(range(256)))
    (home / "wrong.yaml").write_text(TINY.replace("attention", "atention"))
    (home / "mine").mkdir()
    (home / "mine" / "notes.txt").write_text("mine")
    arguments, said = BAD[name]
    before = {path: path.is_file() and path.read_bytes() for path in home.rglob("*")}
    done = command(*arguments, *more)
    assert (done.code, done.stdout) == (2, "")
    assert said in done.stderr
    assert "hint: " in done.stderr or "Try 'search.py" in done.stderr
    assert "Traceback" not in done.stderr
    assert {path: path.is_file() and path.read_bytes() for path in home.rglob("*")} == before


@pytest.mark.parametrize("name", BAD)
def test_misuse_is_one_message_and_touches_nothing(home, name):
    assert_is_misuse(home, name)


@pytest.mark.parametrize("name", [name for name, (words, _) in BAD.items() if words[0] == "run"])
def test_misuse_of_a_dry_run_is_that_of_the_run(home, name):
    assert_is_misuse(home, name, "--dry-run")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none_is_misuse(home):
    done = command("run", "tiny.yaml", "--device=cuda")
    assert done.code == 2
    assert "torch sees no CUDA device" in done.stderr
    assert not (home / "results").exists()


def test_all_problems_of_a_configuration_are_said_at_once(home):
    done = command("run", "tiny.yaml", "--set=train.lr=-1", "--set=nonsense=1", "--epochs=-1")
    assert done.code == 2
    for said in ("train.lr", "nonsense", "train.epochs"):
        assert said in done.stderr


def test_another_configuration_in_a_run_is_misuse_that_shows_the_difference(finished):
    done = command(*finished.arguments, "--seed=5")
    assert done.code == 2
    assert "seed: 0 in the run, 5 asked" in done.stderr


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


def test_debug_shows_where_an_error_comes_from(home):
    with pytest.raises(Exception, match="nope does not exist"):
        command("status", "nope", "--debug")


def test_the_bundled_space_is_found_from_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert json.loads(command("check").stdout)["name"] == "digits"


def test_an_exported_network_teaches_another_run(finished, tmp_path):
    exported = command(
        "export", finished.folder, "--pick", "top1", "--to", tmp_path / "vit", "--formats", "timm"
    )
    assert exported.code == 0, exported.stderr
    arguments = run_arguments(tmp_path / "r", "--trials=2", f"--teacher=local-dir:{tmp_path / 'vit'}")
    taught = command(*arguments)
    assert taught.code == 0, taught.stderr
    assert json.loads(taught.stdout)["points"]
    assert (
        json.loads((tmp_path / "r" / "manifest.json").read_text())["supernet_digest"]
        != (json.loads((finished.folder / "manifest.json").read_text())["supernet_digest"])
    )


def test_a_teacher_that_cannot_be_had_stops_a_run_before_anything_is_written(tmp_path):
    refused = command(*run_arguments(tmp_path / "r", "--trials=2", "--teacher=local-dir:/no/such"))
    assert refused.code == 2
    assert "--teacher local-dir:/no/such" in refused.stderr
    assert not (tmp_path / "r").exists()
