"""The supernets of a run: the union of their fronts and trials."""

import numpy as np
import pytest
from factories import OBJECTIVES, distinct_architectures, measurement
from report_runs import made_trials, make_run, page_data, supernets_run

from nas.base.errors import RunError
from nas.runs.directory import RunDirectory
from nas.runs.front import ParetoFront
from nas.runs.point import FrontPoint
from nas.runs.supernets import OWNER, union_points


def test_the_trials_of_all_supernets_are_shown_each_with_its_own(tmp_path):
    run = supernets_run(tmp_path / "several", 30)
    data = page_data(run)
    assert [(one["number"], one["state"], one["num_trials"]) for one in data["supernets"]] == [
        (0, "complete", 30),
        (1, "complete", 30),
        (2, "failed", 0),
    ]
    on_front = [row["supernet"] for row in data["front"]]
    assert [one["num_on_front"] for one in data["supernets"]] == [on_front.count(number) for number in range(3)]
    assert set(on_front) == set(data["cloud"]["supernet"]) == {0, 1}
    folders = {one["number"]: run.supernets_dir / one["key"] for one in data["supernets"]}
    trials = {number: RunDirectory.open(folder).trials() for number, folder in folders.items()}
    measured = {t.architecture.digest for number in (0, 1) for t in trials[number]}
    assert {row["digest"] for row in data["front"]} | set(data["cloud"]["digest"]) == measured
    for row in data["front"]:
        assert trials[row["supernet"]][row["number"]].architecture.digest == row["digest"]
    assert data["curve"][-1][0] == 60
    assert data["conditions"]["cloud"]["supernet"] == data["conditions"]["front"]["supernet"]
    assert page_data(make_run(tmp_path / "one", made_trials(5)))["supernets"] == []


def test_of_an_architecture_in_several_supernets_the_better_top1_counts(tmp_path):
    run = supernets_run(tmp_path / "several", 30)
    data = page_data(run)
    best = {}
    for one in data["supernets"][:2]:
        for trial in RunDirectory.open(run.supernets_dir / one["key"]).trials():
            top1 = trial.measurement.values["top1"]
            best[trial.architecture.digest] = max(top1, best.get(trial.architecture.digest, 0))
    assert len(best) < 60
    shown = dict(zip(data["cloud"]["digest"], data["cloud"]["top1"], strict=True))
    assert all(top1 == pytest.approx(best[digest], rel=1e-4) for digest, top1 in shown.items())


def measured(rng, supernet, architectures, **changes):
    """Top-1 depends on the weights, MACs on the architecture alone."""
    return [
        FrontPoint(
            a, measurement(float(rng.integers(50, 60)), int(a.digest[0], 16) + 1, 1.0, supernet=supernet, **changes)
        )
        for a in architectures
    ]


@pytest.mark.parametrize("seed", range(20))
def test_the_union_is_what_no_point_of_any_supernet_dominates(seed):
    rng = np.random.default_rng(seed)
    architectures = distinct_architectures(12, seed)
    fronts = {
        "supernets/a": measured(rng, "aaaaaaaaaaaa", architectures[:8]),
        "supernets/b": measured(rng, "bbbbbbbbbbbb", architectures[4:]),
    }
    union = ParetoFront.from_points(union_points(fronts), OBJECTIVES)
    rows = {(p.digest, folder): p.measurement.values for folder, points in fronts.items() for p in points}

    def beaten(values):
        return any(
            other["top1"] >= values["top1"]
            and other["macs"] <= values["macs"]
            and (other["top1"], other["macs"]) != (values["top1"], values["macs"])
            for other in rows.values()
        )

    for point in union.points:
        named = rows[point.digest, point.details[OWNER]]
        assert named == point.measurement.values
        assert not beaten(named)
    missing = {digest for digest, _ in rows} - {point.digest for point in union.points}
    for digest in missing:
        assert all(beaten(values) for (d, _), values in rows.items() if d == digest)


def test_points_under_other_conditions_never_meet_in_a_union():
    rng = np.random.default_rng(0)
    one, two = distinct_architectures(2)
    fronts = {"a": measured(rng, "a" * 12, [one]), "b": measured(rng, "b" * 12, [two], precision="bf16")}
    with pytest.raises(RunError, match="precision"):
        ParetoFront.from_points(union_points(fronts), OBJECTIVES)
