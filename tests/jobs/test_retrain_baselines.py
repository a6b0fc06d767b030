"""`retrain --baseline`: what an architecture is compared with, trained the same way."""

import csv
import io
import json
import shutil
from dataclasses import replace

import pytest
import timm
import torch
from rich.console import Console
from safetensors.torch import load_file
from small_runs import command, one_thread

from nas.arch import cost
from nas.base.metrics import MACS
from nas.base.progress import Reporter
from nas.evaluation.accuracy import count_correct, top1_percent
from nas.jobs.alone_records import stand_alone_setup
from nas.jobs.rivals import baselines
from nas.jobs.rivals.baselines import Rival, baseline_of, rivals_of
from nas.jobs.session import reopen, reopen_with_test
from nas.report.job_tables import retrain_table
from nas.runs.directory import RunDirectory
from nas.runs.point import points_of
from nas.runs.results import results_of, retrained_networks, retrained_rows
from nas.space.designs import is_plain, plain_shapes
from nas.training.guest import Guest

CPU = torch.device("cpu")
CHEAP = ("--epochs=1", "--workers=0")
GUEST = "timm:mobilenetv3_small_050"  # of those that take 8 pixels, the smallest
ALL = tuple(f"--baseline={name}" for name in ("plain", "whole", "narrow", GUEST))


@pytest.fixture(autouse=True)
def _single_threaded():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def home(finished, tmp_path_factory):
    """A copy of a finished run, what `retrain` with every kind of baseline finds there, and the network it was for."""
    folder = tmp_path_factory.mktemp("baselines") / "r"
    shutil.copytree(finished.folder, folder)
    found = results_of(RunDirectory.open(folder)).points.values()
    picked = max((one for one in found if not is_plain(one.architecture)), key=lambda one: one.value(MACS)).architecture
    with one_thread():
        done = command("retrain", folder, f"--pick={picked.digest}", *CHEAP, "--from=inherited", *ALL)
    assert done.code == 0, done.stderr
    return folder, json.loads(done.stdout), picked


@pytest.fixture
def copy(home, tmp_path):
    folder = tmp_path / "r"
    shutil.copytree(home[0], folder)
    return folder


def row_of(found, name):
    (row,) = [row for row in found["baselines"] if row["name"] == name]
    return row


def test_every_baseline_is_a_row_with_its_costs_and_where_it_starts(home):
    folder, found, picked = home
    space = reopen(folder, Reporter(quiet=True)).space
    below = [one for one in plain_shapes(space) if cost.macs(one, space.backbone) <= cost.macs(picked, space.backbone)]
    plain = baseline_of(space, picked, points_of(RunDirectory.open(folder).trials()))[1]
    assert [(row["baseline"], row["name"], row["digest"], row["from"]) for row in found["baselines"]] == [
        ("plain", "best plain ViT at no more MACs", plain.digest, "inherited"),
        ("whole", "largest", space.largest().digest, "inherited"),
        ("narrow", "narrow plain ViT", below[-1].digest, "scratch"),
        (GUEST, GUEST, GUEST, "scratch"),
    ]
    assert "baseline" not in found["picked"]
    model = timm.create_model(GUEST.removeprefix("timm:"), num_classes=10)
    assert row_of(found, GUEST)["params"] == sum(parameter.numel() for parameter in model.parameters())
    assert all(row["latency_ms"] > 0 for row in (found["picked"], *found["baselines"]))
    assert found["latency"]["target"].startswith("torch-cpu")


def test_a_model_of_timm_is_trained_by_the_recipe_and_tested_on_the_same_images(home):
    folder, found, _ = home
    row = row_of(found, GUEST)
    session, test = reopen_with_test(folder, Reporter(quiet=True))
    (record,) = (folder / "retrain" / "trainings").glob("timm-*.json")
    kept = json.loads(record.read_text())
    assert (kept["digest"], kept["epochs"], kept["seed"], kept["error"]) == (GUEST, 1, 0, None)
    guest = Guest(GUEST, session.space.backbone, session.data.info)
    first = {name: value.clone() for name, value in guest.state_dict().items()}
    guest.load_state_dict(load_file(record.with_suffix(".safetensors")))
    assert any(not torch.equal(first[name], value) for name, value in guest.state_dict().items())
    assert row["top1"] == kept["top1"] == top1(guest, session.data.search)
    assert row["test_top1"] == top1(guest, test.open())
    assert row["inherited_top1"] is None


def top1(model, images):
    return top1_percent(count_correct(model.eval(), images, batch_size=50, device=CPU, precision="fp32"))


def test_table_csv_file_report_and_bundle_have_them_all(home, copy, monkeypatch, tmp_path):
    _, found, _ = home
    picked = home[2].digest
    monkeypatch.setattr(baselines, "MUCH", 1e-6)
    words = ("retrain", copy, f"--pick={picked}", *CHEAP, "--from=inherited", *ALL, "--format=csv")
    again = command(*words, "--to", tmp_path / "vit")
    assert "5 trainings, 5 done already" in again.stderr
    assert again.stderr.count("times the MACs of the picked network") == 1  # of the model of timm alone
    described = json.loads((tmp_path / "vit" / "metrics.json").read_text())["retrained"]
    assert described["latency"] == found["latency"]
    assert all(row["latency_ms"] > 0 for row in described["baselines"])
    rows = list(csv.DictReader(io.StringIO(again.stdout)))
    assert [row["name"] for row in rows] == [row["name"] for row in (found["picked"], *found["baselines"])]
    assert [float(row["test_top1"]) for row in rows[1:]] == [row["test_top1"] for row in found["baselines"]]
    console = Console(width=200)
    with console.capture() as capture:
        console.print(retrain_table(found))
    for words in (f"{GUEST}, from random weights", "narrow plain ViT", "largest (", "latency: torch-cpu"):
        assert words in capture.get()
    shown = retrained_networks(results_of(RunDirectory.open(copy)))
    assert {row["name"] for row in shown if row["is_baseline"]} == {row["name"] for row in found["baselines"]}
    (guest,) = [row for row in shown if row["name"] == GUEST]
    assert guest["latency_alone_ms"] > 0
    assert guest.get("latency_ms") is None  # measured under other conditions than the front
    assert command("report", copy).code == 0
    assert GUEST in (copy / "report.html").read_text()


def test_without_a_baseline_only_the_picked_network_is_trained(home, copy):
    done = command("retrain", copy, f"--pick={home[2].digest}", *CHEAP, "--from=inherited", "--baseline=none")
    assert "1 training, 1 done already" in done.stderr
    found = json.loads(done.stdout)
    assert found["baselines"] == []
    assert "latency" not in found
    assert found["picked"] == {key: value for key, value in home[1]["picked"].items() if key != "latency_ms"}


def test_a_network_is_not_its_own_baseline_and_a_line_says_what_it_is(copy):
    largest = reopen(copy, Reporter(quiet=True)).space.largest().digest
    asked = ("--from=inherited", "--baseline=whole", "--baseline=plain")
    done = command("retrain", copy, f"--pick={largest[:8]}", *CHEAP, *asked)
    assert done.code == 0, done.stderr
    assert f"baseline  whole: none; it is the {largest[:8]} itself" in done.stderr


def test_findings_of_earlier_versions_are_read():
    picked, first, second = ({"name": name} for name in "abc")
    assert retrained_rows({"picked": picked, "baseline": None}) == [picked]
    assert retrained_rows({"picked": picked, "baseline": first, "whole": second}) == [picked, first, second]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--baseline=wide"], "--baseline wide: it is one of plain, whole, narrow, timm:NAME, none"),
        (["--baseline=hole"], "did you mean whole?"),
        (["--baseline=none", "--baseline=plain"], "--baseline none, and others"),
        (["--baseline=timm:"], "which model of timm?"),
        (["--baseline=timm:resnett18"], "near: timm:resnet18"),
        (["--baseline=timm:resnet18.none_such"], "no such trained weights"),
        (["--baseline=timm:vit_tiny_patch16_224"], "it cannot take images of 8 pixels"),
        (["--whole"], "hint: --baseline plain --baseline whole"),
        (["--no-baseline"], "hint: --baseline none"),
    ],
)
def test_what_cannot_be_trained_is_said_before_anything_is(arguments, words, copy):
    before = sorted(path.name for path in (copy / "retrain" / "trainings").iterdir())
    done = command("retrain", copy, "--pick=knee", *CHEAP, *arguments)
    assert done.code == 2, done.stderr
    assert words in " ".join(done.stderr.split())
    assert sorted(path.name for path in (copy / "retrain" / "trainings").iterdir()) == before


def test_the_card_of_a_bundle_has_every_baseline_and_where_it_starts(home, copy, tmp_path):
    found = home[1]
    asked = (f"--pick={home[2].digest}", *CHEAP, "--from=inherited", *ALL, "--to", tmp_path / "vit")
    done = command("retrain", copy, *asked)
    assert done.code == 0, done.stderr
    card = (tmp_path / "vit" / "README.md").read_text()
    guest = row_of(found, GUEST)
    assert f"| {GUEST}, trained the same way from random weights | {guest['test_top1']:.2f} |  |" in card
    assert "| narrow plain ViT, trained the same way from random weights |" in card
    largest = row_of(found, "largest")
    line = f"| largest, trained the same way | {largest['test_top1']:.2f} | {largest['inherited_test_top1']:.2f} |"
    assert line in card
    commands = json.loads((tmp_path / "vit" / "provenance.json").read_text())["commands"]
    assert "--baseline plain --baseline whole --baseline narrow --baseline timm:mobilenetv3_small_050" in commands[1]


def test_what_an_answer_replaces_is_told_and_the_same_question_replaces_nothing(copy, home):
    again = command("retrain", copy, f"--pick={home[2].digest}", *CHEAP, "--from=inherited", *ALL)
    assert not [line for line in again.stderr.splitlines() if line.startswith("replaces")]
    fewer = command("retrain", copy, f"--pick={home[2].digest}", *CHEAP, "--from=inherited")
    (told,) = [line for line in fewer.stderr.splitlines() if line.startswith("replaces")]
    assert "the answer of 1 epoch beside 4 baselines; its trainings are kept" in told


def test_random_weights_are_not_frozen(copy, home):
    done = command("retrain", copy, f"--pick={home[2].digest}", *CHEAP, "--set=train.trainable=head_and_norms")
    assert done.code == 2
    assert "train.trainable=head_and_norms: random weights would stay as they are" in done.stderr
    assert "--from inherited" in done.stderr


def test_a_plain_vit_of_more_macs_is_said_to_be_one(home):
    space, picked = reopen(home[0], Reporter(quiet=True)).space, home[2]
    heard = []

    class Told(Reporter):
        def line(self, label, text, **_):
            heard.append((label, text))

    setup = replace(stand_alone_setup(reopen(home[0], Reporter(quiet=True)), 1, home[0]), keeps_weights=True)
    own = Rival(name="picked", architecture=picked, setup=setup, start="scratch")
    (_, plain) = rivals_of(own, ["plain"], setup, [], Told(quiet=True))
    times = cost.macs(plain.architecture, space.backbone) / cost.macs(picked, space.backbone)
    text = f"plain: none was measured at no more MACs; the {plain.name} of the space instead, {times:.3g} times as many"
    assert heard == [("baseline", text)]


def test_the_card_of_what_was_retrained_sets_no_inherited_accuracy_beside_it(copy, home, tmp_path):
    words = (f"--pick={home[2].digest}", *CHEAP, "--from=inherited", "--to", tmp_path / "vit")
    assert command("retrain", copy, *words).code == 0
    assert "plain" not in json.loads((tmp_path / "vit" / "metrics.json").read_text())
    assert "top-1, plain ViT" not in (tmp_path / "vit" / "README.md").read_text()
