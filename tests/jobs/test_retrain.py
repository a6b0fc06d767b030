"""`retrain`: an architecture of the front trained alone and tested, beside a baseline; each training done once."""

import contextlib
import csv
import io
import json
import shutil
import signal
import statistics
import time

import pytest
import timm
import torch
from rich.console import Console
from safetensors.torch import load_file
from small_runs import command, digits, one_thread, python, run_arguments, search_process

from nas.arch import cost
from nas.arch.architecture import Architecture
from nas.base.errors import ConfigError
from nas.base.progress import Reporter
from nas.evaluation.accuracy import count_correct, top1_percent
from nas.jobs.alone import space_of_one
from nas.jobs.rivals.baselines import baseline_of
from nas.jobs.session import reopen, reopen_with_test
from nas.model.supernet import Supernet
from nas.report.job_tables import retrain_table
from nas.runs.directory import RunDirectory
from nas.runs.front import ParetoFront
from nas.runs.point import points_of
from nas.runs.results import network_row, retrained_rows
from nas.settings.retraining import check_retraining
from nas.space.designs import is_plain
from nas.training.operators.frozen import FROZEN
from nas.training.trained import load_trained
from nas.training.trainer import SupernetTrainer

CPU = torch.device("cpu")
CHEAP = ("--pick=knee", "--seeds=2", "--epochs=1", "--workers=0")
PATIENCE_S = 500


@pytest.fixture(autouse=True)
def _single_threaded():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def home(finished, tmp_path_factory):
    """A copy of a finished run, and what `retrain` from the supernet's weights finds there."""
    folder = tmp_path_factory.mktemp("retrain") / "r"
    shutil.copytree(finished.folder, folder)
    with one_thread():
        done = command("retrain", folder, *CHEAP, "--from=inherited")
    assert done.code == 0, done.stderr
    return folder, json.loads(done.stdout)


@pytest.fixture
def copy(home, tmp_path):
    folder = tmp_path / "r"
    shutil.copytree(home[0], folder)
    return folder


def knee(folder):
    return ParetoFront.from_run(folder).knee()


def top1(model, images):
    return top1_percent(count_correct(model.eval(), images, batch_size=50, device=CPU, precision="fp32"))


def trainings(folder):
    """When each file of a training was written, by its name."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / "retrain" / "trainings").glob("*.*")}


# --- what is found ---


@pytest.mark.parametrize("origin", ["inherited", "scratch"])
def test_the_accuracy_is_that_of_the_architecture_trained_alone_from_there_by_the_recipe_of_the_run(
    origin, home, copy, tmp_path
):
    done = command("retrain", copy, *CHEAP, f"--from={origin}", "--set=train.lr=0.02")
    found = json.loads(done.stdout)
    session, test = reopen_with_test(copy, Reporter(quiet=True))
    point = knee(copy)
    seed = session.config.seed + 1
    alone = Supernet(space_of_one(session.space, point.architecture), seed=seed)
    if origin == "inherited":
        alone.load_slices(load_trained(session.run, session.space, session.device).state_dict())
    trainer = SupernetTrainer(
        alone,
        session.data.train,
        session.config.train.model_copy(update={"epochs": 1, "lr": 0.02}),
        seed=seed,
        device=CPU,
        precision="fp32",
        directory=tmp_path / "own",
    )
    subnet = trainer.run().extract(point.architecture)
    assert found["from"] == origin
    assert found["settings"]["train"]["lr"] == 0.02
    assert found["picked"]["top1_by_seed"][1] == top1(subnet, session.data.search)
    assert found["picked"]["test_top1_by_seed"][1] == top1(subnet, test.open())
    assert found["recipe"] != home[1]["recipe"]


def test_inherited_values_are_those_of_the_table_and_of_the_supernet_on_the_test_split(home):
    folder, found = home
    session, test = reopen_with_test(folder, Reporter(quiet=True))
    point = knee(folder)
    assert found["picked"]["digest"] == point.digest
    assert found["picked"]["inherited_top1"] == point.measurement.values["top1"]
    subnet = load_trained(session.run, session.space, session.device).extract(point.architecture)
    assert found["picked"]["inherited_test_top1"] == top1(subnet, test.open())
    assert (found["search_images"], found["test_images"]) == (287, 359)
    assert found["splits"] == RunDirectory.open(folder).manifest.splits


def test_the_baseline_is_a_plain_vit_of_at_most_the_cost_trained_the_same_way(home):
    folder, found = home
    session = reopen(folder, Reporter(quiet=True))
    space = session.space
    name, plain = baseline_of(space, knee(folder).architecture, points_of(session.run.trials()))
    (baseline,) = found["baselines"]
    assert (baseline["name"], baseline["digest"]) == (name, plain.digest)
    assert is_plain(plain)
    assert name == "plain ViT" or baseline["macs"] <= found["picked"]["macs"]
    assert baseline["macs"] == cost.macs(plain, space.backbone)
    assert baseline["seeds"] == found["picked"]["seeds"] == [0, 1]
    records = [json.loads(path.read_text()) for path in (folder / "retrain" / "trainings").glob("*.json")]
    assert {(record["recipe"], record["epochs"]) for record in records} == {(found["recipe"], 1)}
    assert {Architecture.from_dict(r["architecture"]).digest for r in records} == {plain.digest, knee(folder).digest}


def test_the_file_holds_what_was_printed_and_the_report_shows_it(copy, home):
    found = home[1]
    name = f"retrain/{found['picked']['digest']}.json"
    assert json.loads((copy / name).read_text()) == found
    assert RunDirectory.open(copy).findings()[name] == found
    assert command("report", copy).code == 0
    assert name in (copy / "report.html").read_text()


def test_table_and_csv_have_the_same_numbers(home, copy):
    found = home[1]
    rows = list(
        csv.DictReader(io.StringIO(command("retrain", copy, *CHEAP, "--from=inherited", "--format=csv").stdout))
    )
    assert [float(row["test_top1"]) for row in rows[:2]] == found["picked"]["test_top1_by_seed"]
    assert [row["name"] for row in rows] == ["knee", "knee", "plain ViT", "plain ViT"]
    console = Console(width=160)
    with console.capture() as capture:
        console.print(retrain_table(found))
    for row in retrained_rows(found):
        assert f"{row['test_top1']:.2f} ± {row['test_top1_sd']:.2f}" in capture.get()


def test_mean_and_deviation_are_over_the_seeds_and_one_seed_has_no_deviation():
    inherited = {"top1": 50.0, "test_top1": 49.0}
    three = [{"seed": i, "top1": 60.0 + i, "test_top1": value} for i, value in enumerate((58.0, 61.0, 67.0))]
    about = {"digest": "0123456789ab", "macs": 1, "params": 2, "from": "scratch"}
    row = network_row("knee", about, inherited, three)
    assert row["test_top1"] == pytest.approx(62)
    assert row["test_top1_sd"] == pytest.approx(statistics.stdev([58, 61, 67]))
    assert row["top1_by_seed"] == [60, 61, 62]
    assert network_row("knee", about, inherited, three[:1])["top1_sd"] is None


def test_with_frozen_matrices_a_slice_of_the_supernet_keeps_its_own(home, copy):
    asked = ("--pick=knee", "--epochs=1", "--workers=0", "--set=train.trainable=head_and_norms", "--baseline=none")
    done = command("retrain", copy, *asked, "--from=inherited")
    found = json.loads(done.stdout)
    assert found["settings"]["train"]["trainable"] == "head_and_norms"
    session = reopen(copy, Reporter(quiet=True))
    architecture = knee(copy).architecture
    before = load_trained(session.run, session.space, session.device).extract(architecture).state_dict()
    (file,) = (copy / "retrain" / "trainings").glob(f"{architecture.digest}-seed0-{found['recipe']}.safetensors")
    after = load_file(file)
    assert {name for name in after if not torch.equal(before[name], after[name])} >= {"head.weight", "norm.weight"}
    frozen = [name for name in after if FROZEN.fullmatch(name)]
    assert len(frozen) == 1 + 4 * len(architecture.layers)
    assert all(torch.equal(before[name], after[name]) for name in frozen)


def test_a_teacher_of_the_same_classes_changes_the_training(home, copy, tmp_path):
    assert command("export", copy, "--pick=top1", "--to", tmp_path / "vit", "--formats=timm").code == 0
    teacher = f"local-dir:{tmp_path / 'vit'}"
    done = command("retrain", copy, *CHEAP, "--from=inherited", f"--teacher={teacher}")
    found = json.loads(done.stdout)
    assert found["settings"]["teacher"] == teacher
    assert "4 trainings, 0 done already" in done.stderr
    weights = [
        copy / "retrain" / "trainings" / f"{found['picked']['digest']}-seed0-{recipe}.safetensors"
        for recipe in (found["recipe"], home[1]["recipe"])
    ]
    assert weights[0].read_bytes() != weights[1].read_bytes()


# --- each training once ---


def test_the_same_command_trains_nothing_again_and_more_seeds_only_what_is_new(home, copy):
    before = trainings(copy)
    assert len(before) == 8
    again = command("retrain", copy, *CHEAP, "--from=inherited")
    assert json.loads(again.stdout) == home[1]
    assert "4 trainings, 4 done already" in again.stderr
    assert trainings(copy) == before
    more = command("retrain", copy, *CHEAP, "--seeds=3", "--baseline=none", "--from=inherited")
    assert "3 trainings, 2 done already" in more.stderr
    found = json.loads(more.stdout)
    assert found["baselines"] == []
    assert found["picked"]["test_top1_by_seed"][:2] == home[1]["picked"]["test_top1_by_seed"]


def test_a_run_that_was_moved_keeps_its_trainings_and_a_lost_network_is_trained_again(copy, home):
    moved = copy.rename(copy.with_name("elsewhere"))
    victim = min((moved / "retrain" / "trainings").glob("*.safetensors"))
    victim.unlink()
    done = command("retrain", moved, *CHEAP, "--from=inherited")
    assert "4 trainings, 3 done already" in done.stderr
    assert victim.exists()
    assert json.loads(done.stdout)["picked"] == home[1]["picked"]


def test_an_architecture_whose_every_training_failed_is_one_error_and_a_failed_baseline_is_left_out(copy, home):
    def fail(digest):
        for path in (copy / "retrain" / "trainings").glob(f"{digest}*.json"):
            record = json.loads(path.read_text())
            path.write_text(json.dumps(record | {"top1": None, "error": "loss is not finite"}))

    fail(home[1]["baselines"][0]["digest"])
    done = command("retrain", copy, *CHEAP, "--from=inherited")
    found = json.loads(done.stdout)
    assert found["baselines"] == []
    assert found["picked"] == home[1]["picked"]
    assert {entry["digest"] for entry in found["failed"]} == {home[1]["baselines"][0]["digest"]}
    fail(home[1]["picked"]["digest"])
    hopeless = command("retrain", copy, *CHEAP, "--from=inherited")
    assert (hopeless.code, hopeless.stdout) == (1, "")
    assert "every training of" in hopeless.stderr
    assert "loss is not finite" in hopeless.stderr


@pytest.mark.slow
def test_a_retrain_killed_in_the_middle_ends_as_one_that_was_not_and_trains_nothing_twice(home, copy, tmp_path):
    shutil.rmtree(copy / "retrain")
    arguments = ["retrain", str(copy), *CHEAP, "--from=inherited"]
    with search_process(arguments, tmp_path) as process:
        deadline = time.monotonic() + PATIENCE_S
        while process.poll() is None and time.monotonic() < deadline:
            started = list(copy.glob("retrain/trainings/*/supernet/step-00000002.json"))
            if len(list(copy.glob("retrain/trainings/*.json"))) >= 1 and started:
                break
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
    known = trainings(copy)
    assert 2 <= len(known) < 8
    done = command(*arguments)
    assert json.loads(done.stdout) == home[1]
    after = trainings(copy)
    records = [name for name in known if name.endswith(".json")]
    assert {name: after[name] for name in records} == {name: known[name] for name in records}
    assert not [path for path in (copy / "retrain" / "trainings").iterdir() if path.is_dir()]


@pytest.mark.ray
@pytest.mark.slow
def test_two_workers_train_what_one_process_trains(home, copy, tmp_path):
    shutil.rmtree(copy / "retrain")
    with search_process(["retrain", str(copy), *CHEAP, "--workers=2", "--from=inherited"], tmp_path) as process:
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, stderr
    assert json.loads(stdout) == home[1]


# --- the bundle ---


def test_the_bundle_is_the_network_of_the_best_seed_and_says_how_it_was_trained(home, copy, tmp_path, monkeypatch):
    done = command("retrain", copy, *CHEAP, "--from=inherited", "--to", tmp_path / "vit")
    assert done.code == 0, done.stderr
    picked = home[1]["picked"]
    best = max(range(2), key=lambda i: (picked["top1_by_seed"][i], -i))
    model = timm.create_model(f"local-dir:{tmp_path / 'vit'}", pretrained=True)
    assert top1(model, digits().search) == pytest.approx(picked["top1_by_seed"][best], abs=1e-9)
    metrics = json.loads((tmp_path / "vit" / "metrics.json").read_text())
    assert (metrics["top1"], metrics["test_top1"]) == (picked["top1_by_seed"][best], picked["test_top1_by_seed"][best])
    assert metrics["retrained"]["picked"] == picked
    assert metrics["retrained"]["seed"] == picked["seeds"][best]
    provenance = json.loads((tmp_path / "vit" / "provenance.json").read_text())
    assert provenance["retrain"]["settings"] == home[1]["settings"]
    card = (tmp_path / "vit" / "README.md").read_text()
    assert "Trained alone for 1 epoch from weights of the supernet" in card
    assert f"| this one | {picked['test_top1']:.2f} ± {picked['test_top1_sd']:.2f} |" in card
    monkeypatch.chdir(tmp_path)  # a bundle names no folders above
    again = command(*provenance["commands"][1].removeprefix("nas ").split(), "--workers=0")
    assert "4 trainings, 4 done already" in again.stderr
    assert json.loads((tmp_path / "vit" / "provenance.json").read_text()) == provenance


def test_no_bundle_is_written_where_the_kept_network_is_not_the_recorded_one(home, copy, tmp_path):
    for path in (copy / "retrain" / "trainings").glob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"top1": 99.0}))
    done = command("retrain", copy, *CHEAP, "--from=inherited", "--to", tmp_path / "vit")
    assert done.code == 1
    assert "top-1 on the search split is" in done.stderr
    assert not (tmp_path / "vit").exists()


# --- misuse ---


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--seeds=0",), "trained at least once"),
        (("--set=data.spec=digits",), "retrain takes data, space and evaluation from the run"),
        (("--set=train.ep=3",), "epochs"),
        (("--teacher=local-dir:nowhere",), "--teacher local-dir:nowhere"),
        (("--set=train.ffn_branches=2",), "train.ffn_branches: this option was removed"),
        (("--pick=abcdef",), "no point of the front answers"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_trained(arguments, words, copy):
    before = trainings(copy)
    done = command("retrain", copy, *CHEAP, *arguments)
    assert done.code == 2
    assert words in done.stderr
    assert trainings(copy) == before


def test_a_folder_that_takes_no_bundle_is_said_before_anything_is_trained(copy, tmp_path):
    before = trainings(copy)
    (tmp_path / "file").write_text("")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes").write_text("")
    for job in (("retrain", copy, *CHEAP, "--seeds=2"), ("export", copy, "--pick=knee")):
        for to, words in (("file/my_vit", "my_vit: not written: "), ("other", "holds something else: notes")):
            done = command(*job, "--to", tmp_path / to)
            assert done.code == 2, done.stderr
            assert words in done.stderr
            assert "opened" not in done.stderr
    assert trainings(copy) == before


def test_a_bundle_as_searched_is_not_replaced_and_one_that_was_retrained_is(copy, tmp_path):
    assert command("export", copy, "--pick=knee", "--to", tmp_path / "vit", "--formats=timm").code == 0
    before = trainings(copy)
    refused = command("retrain", copy, *CHEAP, "--from=inherited", "--to", tmp_path / "vit")
    assert refused.code == 2
    assert "as searched, which one as retrained does not replace" in refused.stderr
    assert "opened" not in refused.stderr
    assert trainings(copy) == before
    with contextlib.chdir(tmp_path):  # the folder that is proposed is free there
        done = command("retrain", copy, *CHEAP, "--from=inherited")
    (told,) = [line for line in done.stderr.splitlines() if "next" in line]
    words = told.removeprefix("next      nas retrain ").split()
    assert words[-2:] == ["--to", "my_vit"]
    for _ in range(2):
        done = command("retrain", *words[:-1], tmp_path / "alone", "--workers=0")
        assert done.code == 0, done.stderr
        assert f"next      nas validate {tmp_path / 'alone'} --data digits" in done.stderr
    refused = command("export", copy, "--pick=knee", "--to", tmp_path / "alone", "--formats=timm")
    assert "as retrained, which one as searched does not replace" in refused.stderr
    assert trainings(copy) == before


def test_options_are_checked_before_torch_is_imported(tmp_path):
    done = python(
        "import sys\nfrom nas.cli import main\n"
        "print(main(['retrain', 'nowhere', '--pick', 'knee', '--seeds', '0']), 'torch' in sys.modules)",
        tmp_path,
    )
    assert done.stdout.split() == ["2", "False"]
    with pytest.raises(ConfigError, match="--set seed=3"):
        check_retraining(1, ["train.lr=1e-3", "seed=3"])


def test_a_run_whose_search_has_not_ended_is_refused(copy):
    (copy / "front.json").unlink()
    refused = command("retrain", copy, *CHEAP)
    assert refused.code == 2
    assert "the search has not ended" in refused.stderr


def test_a_run_without_test_images_is_refused_before_anything_is_trained(tmp_path):
    arguments = run_arguments(tmp_path / "r", "--trials=4", "--set=data.test_fraction=0")
    assert command(*arguments).code == 0
    refused = command("retrain", tmp_path / "r", *CHEAP)
    assert refused.code == 2
    assert "no test split" in refused.stderr
    assert not (tmp_path / "r" / "retrain").exists()
