"""What the page of a run shows: the values of its files, with their units."""

import json
import shlex
from dataclasses import replace

import pytest
from report_runs import COUNT, made_trials, make_run, page_data, page_space, supernets_run, training_log, trusted

from nas.arch import cost
from nas.report.page.data import _plain, genes
from nas.runs.directory import RunDirectory
from nas.runs.front import ParetoFront
from nas.runs.results import results_of
from nas.runs.trial import TrialState


def test_every_point_of_the_front_is_there_with_its_values_layers_and_commands(page_run):
    front, data = ParetoFront.from_run(page_run.path), page_data(page_run)
    assert [row["digest"] for row in data["front"]] == [point.digest for point in front.points]
    for row, point in zip(data["front"], front.points, strict=True):
        assert {name: row[name] for name in ("top1", "macs", "params", "latency_ms")} == dict(point.measurement.values)
        assert row["latency_ms_ci"] == list(point.measurement.intervals["latency_ms"])
        assert sum(part["macs"] for part in row["rows"]) == cost.macs(point.architecture, page_space().backbone)
        words = shlex.split(row["export"])
        assert words[:3] == ["nas", "export", page_run.name]
        assert front.pick(words[words.index("--pick") + 1]) == point
    assert data["picks"]["knee"] == front.knee().digest


def test_what_is_not_on_the_front_is_a_dot_or_is_counted(page_run):
    data, trials = page_data(page_run), page_run.trials()
    on_front = {row["digest"] for row in data["front"]}
    whole = {t.architecture.digest for t in trials if t.state is TrialState.COMPLETE}
    assert set(data["cloud"]["digest"]) == whole - on_front
    assert data["counts"] == {"complete": COUNT, "failed": 3}
    assert data["errors"] == [("out of memory", 3)]


def test_what_trust_found_is_there_as_it_was_written(tmp_path):
    run = make_run(tmp_path / "r", made_trials(10))
    assert page_data(run)["trust"] is None
    trusted(run)
    assert page_data(run)["trust"] == json.loads((run.path / "trust.json").read_text())


def test_of_several_supernets_the_knees_is_the_one_that_trust_is_asked_of(tmp_path):
    run = supernets_run(tmp_path / "several", 20)
    of_knee = RunDirectory.open(run.path / ParetoFront.from_run(run.path).knee().details["supernet_run"])
    assert shlex.split(page_data(run)["trust_command"])[-1] == f"several/supernets/{of_knee.name}"
    trusted(of_knee)
    assert page_data(run)["trust"]["run"] == of_knee.name


def test_every_target_is_a_metric_with_its_unit_conditions_and_doubts(tmp_path):
    run = make_run(tmp_path / "r", made_trials(40), targets=2)
    data, front = page_data(run), ParetoFront.from_run(run.path)
    assert [target["metric"] for target in data["targets"]] == ["latency_ms", "latency_ms_2"]
    assert [target["repeat_tau"] for target in data["targets"]] == [0.93, None]
    assert data["units"]["latency_ms_2"]["unit"] == "ms / 1 image"
    for row, point in zip(data["front"], front.points, strict=True):
        first, second = point.measurement.latency.values()
        assert (row["latency_ms_2"], row["latency_ms_2_ci"]) == (second.ms, list(second.interval))
        assert row["doubts"]["latency_ms"] == {"noisy": first.noisy, "ties": list(first.ties)}
    digest, written = front.points[0].digest, run.front()
    ties = written["points"][1]["details"]["latency"]["ties"]
    ties.append("0" * 12)  # was measured and is not on the front
    run.write_front(written)
    assert page_data(run)["front"][1]["doubts"]["latency_ms"]["ties"] == [digest]


def test_a_run_of_one_target_has_no_other_latency(page_run):
    data = page_data(page_run)
    assert [target["metric"] for target in data["targets"]] == ["latency_ms"]
    assert "latency_ms_2" not in {**data["units"], **data["front"][0], **data["cloud"]}


def test_genes_of_what_is_not_on_the_front_are_those_of_its_architecture(page_run):
    cloud = page_data(page_run)["cloud"]
    trials = {trial.architecture.digest: trial.architecture for trial in page_run.trials()}
    for i, digest in enumerate(cloud["digest"]):
        for name, value in genes(trials[digest]).items():
            assert cloud[name][i] == pytest.approx(value, rel=1e-4)


def test_the_page_says_what_the_front_gains_and_what_chance_is(page_run):
    data = page_data(page_run)
    assert "the best plain ViT" in data["verdict"]
    assert data["chance"] == "chance: 10.0 % (10 classes)"


def test_the_summary_says_which_data_and_how_long(tmp_path):
    trials = [
        replace(trial, started=1_000.0 + 10 * i, finished=1_008.0 + 10 * i) for i, trial in enumerate(made_trials(12))
    ]
    run = make_run(tmp_path / "r", trials, config={"data": {"spec": "digits"}}, created=700.0)
    summary = page_data(run)["summary"]
    assert summary["data"] == "digits: 10 classes, 16 x 16 pixels, 144 images of the search split chose"
    told = "5:00 to the first trial, 1:58 of search, pauses counted; begun 1970-01-01 00:11 UTC"
    assert summary["time"] == told


def test_the_losses_are_means_of_as_many_steps_as_can_be_drawn(tmp_path):
    run = make_run(tmp_path / "r", made_trials(12))
    assert page_data(run)["losses"] == []
    training_log(run, 1_000)
    largest, smallest, random = page_data(run)["losses"]
    assert [name for name, _ in (largest, smallest, random)] == ["largest subnet", "smallest subnet", "random subnet"]
    assert (len(largest[1]), largest[1][0], largest[1][-1]) == (200, (1.0, 3.0), (996.0, 998.0))
    assert smallest[1][0] == (1.0, 4.0)
    assert random[1] == largest[1][:100]  # the later ones are not numbers


def test_of_several_supernets_each_has_a_line_of_losses(tmp_path):
    run = supernets_run(tmp_path / "several", 12)
    for folder in run.supernets_dir.iterdir():
        training_log(RunDirectory(folder), 10)
    assert sorted(name for name, _ in page_data(run)["losses"]) == [f"supernet {i}, random subnet" for i in range(3)]


def test_plain_vits_say_their_stem_where_there_is_another(page_run):
    found = results_of(page_run)
    assert not any("stem" in row for row in _plain(found)["points"])
    rows = _plain(replace(found, space=replace(found.space, stem=("patch", "conv"))))["points"]
    assert {row["stem"] for row in rows} == {"patch"}
