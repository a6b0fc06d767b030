import io
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_runs import TINY, command, run_arguments

from nas.arch.architecture import Architecture
from nas.cli.app import main
from nas.runs.directory import RunDirectory


def test_run_prints_the_front_and_speaks_to_people_on_stderr(finished):
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
    return [trial.architecture.digest for trial in RunDirectory.open(folder).trials()]


def test_without_ray_a_run_of_no_workers_ends_well_and_others_are_refused_at_once(home):
    driver = [sys.executable, Path(__file__).parents[1] / "helpers" / "no_ray_driver.py", *run_arguments(home / "r")]
    refused = subprocess.run([*driver, "--workers=1"], capture_output=True, text=True)
    assert (refused.returncode, refused.stdout) == (2, "")
    first, _, refusal = refused.stderr.partition("\n")
    assert first.startswith("start ")
    assert refusal == "error: Ray is not installed\nhint: --workers 0 does without; or pip install 'ray[tune]'\n"
    assert not (home / "r").exists()
    done = subprocess.run([*driver, "--workers=0"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "ray" not in RunDirectory.open("r").manifest.versions


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
    "no space": (["train"], "SPACE"),
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
    "two limits": (["search", "nope", "--trials=3", "--minutes=1"], "--trials and --minutes"),
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
    "unreachable storage": (["run", "tiny.yaml", "--storage=postgresql://me:secret@127.0.0.1:9/x"], "me:***@"),
    "storage with one slash": (["run", "tiny.yaml", "--storage=postgresql:/me:secret@h/x"], "me:***@h/x is neither"),
    "storage without a host": (["run", "tiny.yaml", "--storage=postgresql://me:secret@:port/x"], "me:***@:port/x"),
    "storage of no kind": (["run", "tiny.yaml", "--storage=oracel://me:secret@h/x"], "oracel://me:***@h/x"),
    "storage is a folder": (["run", "tiny.yaml", "--storage=."], "storage . is a folder"),
    "storage in no folder": (["run", "tiny.yaml", "--storage=none/journal.log"], "none/journal.log cannot be written"),
    "storage in no variable": (["run", "tiny.yaml", "--storage=$NO_SUCH_URL"], "no variable NO_SUCH_URL"),
    "secret out of place": (["run", "tiny.yaml", "postgresql://me:secret@h/x"], "me:***@h/x"),
    "escapes out of place": (["run", "tiny.yaml", "--set", "a.b=\x1b[31m"], "a"),
    "cluster without a port": (["run", "tiny.yaml", "--ray-address=abc"], "'abc' is none"),
    "cluster with a strange port": (["run", "tiny.yaml", "--ray-address=abc:x"], "'abc:x' is none"),
    "cluster that is not there": (["run", "tiny.yaml", "--ray-address=no.such.host.invalid:6379"], "no.such.host"),
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
    assert "hint: " in done.stderr or "Try 'nas" in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr
    assert "\x1b[31m" not in done.stderr
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


def test_debug_shows_where_an_error_comes_from(home):
    with pytest.raises(Exception, match="nope does not exist"):
        command("status", "nope", "--debug")


def test_an_exported_network_teaches_another_run(finished, tmp_path):
    exported = command("export", finished.folder, "--pick", "top1", "--to", tmp_path / "vit", "--formats", "timm")
    assert exported.code == 0, exported.stderr
    arguments = run_arguments(tmp_path / "r", "--trials=2", f"--teacher=local-dir:{tmp_path / 'vit'}")
    taught = command(*arguments)
    assert taught.code == 0, taught.stderr
    assert json.loads(taught.stdout)["points"]
    shutil.rmtree(tmp_path / "vit")  # it was needed while the supernet was trained
    for again in (
        ["search", tmp_path / "r", "--trials=3", "--workers=0"],
        ["export", tmp_path / "r", "--pick=top1", "--to", tmp_path / "bundle", "--formats=timm"],
        ["retrain", tmp_path / "r", "--pick=top1", "--epochs=1", "--workers=0", "--baseline=none"],
        arguments,
    ):
        done = command(*again)
        assert done.code == 0, done.stderr
        assert ("networks learn from the labels" in done.stderr) == (again[0] == "retrain")
    refused = command("trust", tmp_path / "r", "--workers=0", "--architectures=4", "--epochs=1")
    assert (refused.code, "--teacher local-dir:" in refused.stderr) == (2, True)
    assert (
        json.loads((tmp_path / "r" / "manifest.json").read_text())["supernet_digest"]
        != (json.loads((finished.folder / "manifest.json").read_text())["supernet_digest"])
    )


def test_a_teacher_that_cannot_be_had_stops_a_run_before_anything_is_written(tmp_path):
    refused = command(*run_arguments(tmp_path / "r", "--trials=2", "--teacher=local-dir:/no/such"))
    assert refused.code == 2
    assert "--teacher local-dir:/no/such" in refused.stderr
    assert not (tmp_path / "r").exists()


def test_every_run_ends_with_a_report(finished):
    run = RunDirectory.open(finished.folder)
    assert f'"run":"{run.name}"' in run.report_path.read_text()
    assert run.figure_path().with_suffix(".pdf").is_file()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError(), "error: out of memory; this process held "),
        (
            RuntimeError("[x] DefaultCPUAllocator: can't allocate memory: 8 bytes"),
            "error: out of memory: can't allocate",
        ),
        (
            OSError(28, "No space left on device"),
            "error: standard output, or a file, cannot be written: No space left on device\n",
        ),
    ],
)
def test_a_machine_without_memory_or_room_is_one_line(home, monkeypatch, error, told):
    def read(*_):
        raise error

    monkeypatch.setattr("nas.space.read_space", read)
    done = command("check", "tiny.yaml")
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr.startswith(told)
    assert "the same command goes on" in done.stderr


def test_output_that_cannot_be_written_is_one_line_and_a_reader_may_leave(home):
    program = [sys.executable, Path(__file__).parents[2] / "search.py", "check", "tiny.yaml"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(program, cwd=home, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: standard output, or a file, cannot be written: No space left on device")
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    left = subprocess.run(
        f"{sys.executable} {program[1]} check tiny.yaml | true", cwd=home, shell=True, capture_output=True
    )
    assert left.stderr == b""


OLD_RUN = Path(__file__).resolve().parents[1] / "fixtures" / "old_run"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
@pytest.mark.parametrize("arguments", [["front"], ["status"], ["show", "knee"]])
def test_a_terminal_of_few_letters_shows_what_it_can(encoding, arguments, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    assert main([arguments[0], str(OLD_RUN), *arguments[1:], "--format", "table"]) == 0
    sys.stdout.flush()
    assert written.getvalue().decode(encoding)


@pytest.mark.parametrize("columns", ["0", "1", "20", "40"])
@pytest.mark.parametrize("arguments", [["front"], ["status"], ["show", "knee"], ["compare", str(OLD_RUN)]])
def test_a_narrow_terminal_is_no_reason_to_fall(columns, arguments, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    assert command(arguments[0], OLD_RUN, *arguments[1:], "--format", "table").code == 0


@pytest.mark.parametrize("name", ["a" * 300, "f.txt/run", "loop", "\udce9"])  # NUL is in no command line
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "{}"),
        ("status", "{}"),
        ("front", "{}"),
        ("train", "tiny.yaml", "--run", "{}"),
        ("show", str(OLD_RUN), "{}"),
    ],
)
def test_names_that_no_file_can_have_are_misuse(home, name, arguments):
    (home / "f.txt").touch()
    (home / "loop").symlink_to("loop")
    before = sorted(home.iterdir())
    done = command(*(word.format(name) for word in arguments), *(("--epochs=0",) if arguments[0] == "train" else ()))
    assert done.code == 2
    assert "Traceback" not in done.stderr
    assert "error" in done.stderr.lower()
    assert sorted(home.iterdir()) == before


def in_training(folder):
    """A run whose supernet is being trained: nothing was searched."""
    run = shutil.copytree(OLD_RUN, folder / "run")
    values = json.loads((run / "manifest.json").read_text())
    searched = ("objectives", "reference_ms", "reference_digest", "further_reference_ms", "supernet_digest", "budget")
    kept = {key: value for key, value in values.items() if key not in searched}
    (run / "manifest.json").write_text(json.dumps({**kept, "stage": "training"}))
    for name in ("trials.jsonl", "trials.csv", "front.json", "front.csv", "journal.log", "trust.json"):
        (run / name).unlink()
    shutil.rmtree(run / "retrain")
    return run


@pytest.mark.parametrize(
    "arguments",
    [
        ("front",),
        ("report",),
        ("show", "knee"),
        ("compare", str(OLD_RUN)),
        ("export", "--pick=knee", "--to=out"),
        ("latency",),
    ],
)
def test_what_a_run_in_training_cannot_show_yet_is_said(tmp_path, arguments, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = in_training(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    done = command(arguments[0], run, *arguments[1:])
    assert done.code == 2
    assert "search has not begun" in done.stderr
    assert "hint: " in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_status_of_a_run_in_training_says_how_far_it_is(tmp_path):
    done = command("status", in_training(tmp_path), "--format", "json")
    assert done.code == 0
    values = json.loads(done.stdout)
    assert (values["stage"], values["front_size"], sum(values["trials"].values())) == ("training", None, 0)


def test_what_a_library_logs_of_a_users_words_has_no_escapes(tmp_path, capsys, monkeypatch):
    """Where nobody handles its log, Python prints it as it is."""
    main(["status", str(tmp_path / "none")])
    log = logging.getLogger("timm.somewhere")
    monkeypatch.setattr(log, "propagate", False)  # pytest handles logs
    log.error("No checkpoint found at '%s'", "a\x1b[31m\x9b2J")
    assert capsys.readouterr().err.splitlines()[-1] == r"No checkpoint found at 'a\x1b[31m\x9b2J'"


def interrupt(*_, **__):
    raise KeyboardInterrupt


def test_ctrl_c_says_what_is_left(home, monkeypatch, finished):
    monkeypatch.setattr("nas.cli.app._start", interrupt)
    done = command("run", "tiny.yaml", "--epochs=1")
    assert (done.code, done.stdout) == (130, "")
    assert done.stderr.splitlines()[-1].startswith("interrupted; nothing was written yet. Again: nas run tiny.yaml")
    monkeypatch.setattr("nas.jobs.reopen", interrupt)
    done = command("search", finished.folder)
    assert done.stderr.splitlines()[-1].startswith("interrupted; what is finished is kept. Resume: nas search")
    monkeypatch.setattr("nas.space.read_space", interrupt)
    assert command("check", "tiny.yaml").stderr == "\ninterrupted\n"


def test_watching_a_run_that_has_ended_shows_it(finished):
    assert command("status", finished.folder, "--watch") == command("status", finished.folder)
