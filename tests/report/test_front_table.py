"""A front in words: values with units and intervals, what is doubtful about them, and every column explained."""

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import factories
import numpy as np
import pytest
from factories import OBJECTIVES, point
from report_runs import LATENCY_ROWS, made_trials, page_space, row_with, supernets_run, text_of

from nas.arch import cost
from nas.base.metrics import MACS, TOP1, by_target
from nas.report.front_table import FRONT_COLUMNS, front_csv, front_table, plain_lines, plain_table
from nas.runs.directory import RunDirectory
from nas.runs.front import ParetoFront
from nas.runs.point import FrontPoint
from nas.runs.results import PlainViTs
from nas.runs.trial import TRIAL_COLUMNS, Timed
from nas.space.designs import is_plain, plain_shapes
from nas.space.space import parse_space

ROOT = Path(__file__).resolve().parents[2]
RUN = Path("results/digits 1")


def front():
    a, b = factories.distinct_architectures(2)
    points = [
        FrontPoint(factories.varied(), factories.measurement(88.25, 1_200_000, 4.0, 21_500)),
        point(91.0, 1_900_000, 6.0, a),
        point(91.5, 24_000_000, 9.0, b),
    ]
    return ParetoFront(OBJECTIVES, points)


def test_front_table_states_values_with_units_interval_knee_and_conditions():
    text = text_of(front_table(front()))
    header = row_with(text, "digest")
    assert header.split() == ["digest", "top-1", "(%)", "MMACs", "params", "(k)", "/", "64", "images)", "layers"]
    assert "latency (ms" in text
    assert "ms / 64 images, 0.0938 ms an image" in row_with(text, "1 MAC = 2 FLOPs")
    first = row_with(text, factories.varied().digest[:8])
    assert first.split() == [factories.varied().digest[:8], "88.2", "1.2", "21.5", "4.00", "±", "0.08", "●○◐▾■◐○◇▾●◇"]
    assert row_with(text, "  ★ ").split()[1] == front().knee().digest[:8]
    assert row_with(text, "◐ hallucinated").split() == (
        ["●", "dynamic", "◐", "hallucinated", "■", "static", "○", "shared", "◇", "linear", "▾", "fewer", "tokens"]
    )
    assert "144 images of the search split, fp32" in text
    words = " ".join(text.split())  # lines wrap at the width of the table
    assert "latency: torch-cpu on cpu: Test CPU, batch of 64, 1 thread, exclusive stage, torch 2.8.0" in words


def test_front_table_fits_an_80_column_terminal():
    assert max(len(line) for line in text_of(front_table(front()), width=80).splitlines()) <= 80
    assert "…" not in text_of(front_table(front()), width=80)


def test_values_that_were_not_measured_are_dashes():
    a, b = factories.distinct_architectures(2)
    unmeasured = FrontPoint(a, factories.measurement(90, 1_000_000, params=None))
    points = [unmeasured, point(80, 2_000_000, 6, b)]
    text = text_of(front_table(ParetoFront(OBJECTIVES[:1], points)))
    assert row_with(text, a.digest[:8]).split()[1:5] == [a.digest[:8], "90.0", "1.00", "-"]


def test_a_part_of_a_front_marks_the_knee_of_the_whole():
    whole = front()
    others = [p for p in whole.points if p.digest != whole.knee().digest]
    part = ParetoFront(OBJECTIVES, others)
    text = text_of(front_table(part, whole=whole))
    assert "Pareto front: 2 of 3 architectures" in text
    assert f"hypervolume {whole.hypervolume():.4f}" in text
    assert "  ★ " not in text


def test_latencies_below_half_a_millisecond_keep_a_third_decimal():
    only = point(90, 1_000_000, 0.045, factories.plain())
    assert "0.045 ± 0.001" in text_of(front_table(ParetoFront(OBJECTIVES, [only])))


def test_an_empty_front_is_a_table_without_rows():
    text = text_of(front_table(ParetoFront(OBJECTIVES, ())))
    assert "0 architectures" in text
    assert front_csv(ParetoFront(OBJECTIVES, ()), RUN).count("\n") == 1


def test_front_csv_has_a_row_a_point_and_the_documented_columns():
    shown = front()
    rows = list(csv.DictReader(io.StringIO(front_csv(shown, RUN))))
    assert ",".join(rows[0]) == (
        "digest,knee,top1,top1_ci_low,top1_ci_high,macs,flops,params,latency_ms,latency_ratio,latency_ci_low_ms,"
        "latency_ci_high_ms,split,conditions.device,conditions.precision,conditions.split,"
        "conditions.num_images,conditions.target,conditions.latency_batch_size,conditions.latency_threads,"
        "conditions.latency_stage,conditions.supernet,conditions.torch,architecture,export_command"
    )
    assert [row["digest"] for row in rows] == [p.digest for p in shown.points]
    assert rows[0]["export_command"] == (
        f"nas export 'results/digits 1' --pick {rows[0]['digest']} --to {rows[0]['digest']}"
    )
    assert [row["digest"] for row in rows if row["knee"] == "True"] == [shown.knee().digest]
    first = rows[0]
    assert (first["macs"], first["flops"], first["params"]) == ("1200000", "2400000", "21500")
    assert (first["latency_ci_low_ms"], first["top1_ci_low"]) == ("3.92", "")
    assert first["architecture"] == factories.varied().to_json()


def doubtful(targets=2):
    """Of three points the first is noisy and tied with the second and with one that is not on the front."""
    found = []
    for i, one in enumerate(front().points):
        others = (front().points[1 - i].digest, "0" * 12) if i < 2 else ()
        first = replace(one.measurement.latency["latency_ms"], noisy=i == 0, ties=others)
        second = Timed(ms=0.4 + i, interval=(0.39 + i, 0.41 + i), noisy=i == 2, target=LATENCY_ROWS[1]["target"])
        both = {"latency_ms": first} | ({"latency_ms_2": second} if targets > 1 else {})
        found.append(replace(one, measurement=replace(one.measurement, latency=both)))
    return ParetoFront(OBJECTIVES, found, by_target(LATENCY_ROWS[:targets]))


def test_what_is_noisy_or_tied_is_marked_and_the_marks_are_explained():
    text = text_of(front_table(doubtful(1)), width=160)
    rows = [row_with(text, one.digest[:8]) for one in doubtful().points]
    assert "4.00 ± 0.08~ =1" in rows[0]
    assert "6.00 ± 0.12  =1" in rows[1]
    assert "=" not in rows[2]
    assert "~ latency not known within 2 %   =n latency not told apart from n others of the front" in text
    assert "order repeats, tau 0.93; batch of 64, 1 thread, fp32" in text
    undoubted = text_of(front_table(front()))
    assert not [sign for sign in ("~", "=1", "tau") if sign in undoubted]


def test_every_target_has_a_column_and_a_line_with_its_tau():
    text = text_of(front_table(doubtful()), width=160)
    first, third = (row_with(text, doubtful().points[i].digest[:8]) for i in (0, 2))
    assert "0.400 ± 0.010 " in first
    assert "2.400 ± 0.010~" in third
    assert "batch=1,threads=2" in text
    assert "onnxruntime-cpu:batch=1,threads=2: too few to say whether their order repeats" in " ".join(text.split())


def test_csv_has_columns_of_further_targets_and_doubts_where_there_are_some():
    rows = list(csv.DictReader(io.StringIO(front_csv(doubtful(), RUN))))
    assert list(rows[0])[: len(FRONT_COLUMNS)] == list(FRONT_COLUMNS)
    second = doubtful().points[1].digest
    assert [row["latency_noisy"] for row in rows] == ["True", "False", "False"]
    assert rows[0]["latency_ties"] == second  # the other one is not on the front
    assert [row["latency_ms_2"] for row in rows] == ["0.4", "1.4", "2.4"]
    assert {row["target_2"] for row in rows} == {LATENCY_ROWS[1]["target"]}
    assert (rows[0]["latency_ci_low_ms_2"], rows[2]["latency_noisy_2"]) == ("0.39", "True")


def test_a_latency_that_the_search_measured_has_a_column_before_the_front_is_final():
    searched = factories.measurement(90, 1_000_000, 5)
    searched = replace(searched, latency={**searched.latency, "latency_ms_2": Timed(ms=7.5)})
    only = ParetoFront(OBJECTIVES, [FrontPoint(factories.plain(), searched)])
    text = text_of(front_table(only))
    assert "target 2" in text
    assert "7.50" in row_with(text, factories.plain().digest[:8])
    (row,) = csv.DictReader(io.StringIO(front_csv(only, RUN)))
    assert (row["latency_ms_2"], row["target_2"]) == ("7.5", "")


def test_points_of_several_supernets_name_theirs(tmp_path):
    run = supernets_run(tmp_path / "several")
    shown = ParetoFront.from_run(run.path)
    owners = [one.details["supernet_run"] for one in shown.points]
    assert len(set(owners)) == 2
    rows = list(csv.DictReader(io.StringIO(front_csv(shown, RUN))))
    assert [row["supernet"] for row in rows] == owners
    text = text_of(front_table(shown), width=160)
    for one, owner in zip(shown.points, owners, strict=True):
        assert owner.split("/")[1][:8] in row_with(text, f" {one.digest[:8]} ")
    assert "supernet" not in next(csv.reader(io.StringIO(front_csv(front(), RUN))))


def test_every_column_and_key_is_explained_in_the_readme(tmp_path):
    explained = set(re.findall(r"`([\w.]+)`", (ROOT / "results" / "README.md").read_text()))
    run = supernets_run(tmp_path / "several")
    values = front().to_dict("r")
    keys = {*TRIAL_COLUMNS, *FRONT_COLUMNS, *values, *values["points"][0], *values["objectives"][0]}
    for shown in (doubtful(), ParetoFront.from_run(run.path)):
        keys |= set(next(csv.reader(io.StringIO(front_csv(shown, RUN)))))
    assert keys - explained == set()
    assert RunDirectory.open(run.path).front() is not None


def plain_front():
    """Two plain ViTs that no other one dominates, one of them on the front, and what the front gains."""
    trials = [t for t in made_trials(40) if not is_plain(t.architecture)]
    points = [FrontPoint(t.architecture, t.measurement) for t in trials]
    small, middle, large = (plain_shapes(page_space())[i] for i in (0, 5, 17))
    macs = [float(cost.macs(shape, page_space().backbone)) for shape in (small, middle, large)]
    tops = (5.0, 99.0, 70.0)
    latency = {"latency_stage": "search"}
    plain = [
        FrontPoint(shape, replace(factories.measurement(top1, m, m / 1e4, m / 10, **latency), top1_interval=None))
        for shape, top1, m in zip((small, middle, large), tops, macs, strict=True)
    ]
    front = ParetoFront.from_points([*points, *plain], OBJECTIVES)
    found = PlainViTs(num_measured=3, points=tuple(plain[:2]), gains={"macs": (-0.26, 0.0, 4.5)}, num_front=12)
    return found, front


def test_plain_vits_have_a_table_of_their_own_with_their_shapes_and_what_the_front_gains():
    plain, front = plain_front()
    text = text_of(plain_table(plain, front), width=100)
    assert "Plain ViTs of this space: 3 measured" in text
    first, second = (row_with(text, point.digest[:8]).split() for point in plain.points)
    assert first[0] == plain.points[0].digest[:8]
    assert (first[1], first[-4:]) == ("5.0", ["d16", "L3", "h2", "m1"])
    assert second[:2] == ["●", plain.points[1].digest[:8]]
    words = " ".join(text.split())
    gain = "at equal MACs, 3 of 12 architectures of the front that are no plain ViTs are"
    assert f"{gain} -0.3 to +4.5 points of top-1 from the best plain ViT, median +0.0" in words
    for gains, told in (
        ((0.0, 4.5), "+0.0 to +4.5 points of top-1 above"),
        ((-4.5, -0.3), "-0.3 points of top-1 below"),
    ):
        text = text_of(plain_table(replace(plain, gains={"macs": gains}), front), width=100)
        assert told in " ".join(text.split())
    assert "by inherited weights: trained alone, networks may rank otherwise" in words


def test_the_table_of_plain_vits_fits_an_80_column_terminal_whole():
    text = text_of(plain_table(*plain_front()), width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text


def test_nothing_is_said_of_plain_vits_where_nothing_can_be_compared():
    plain, front = plain_front()
    assert plain_lines(replace(plain, gains={}), front) == []


def test_the_plain_vits_have_the_unit_of_the_front_beside_them():
    plain, found = plain_front()
    assert max(p.value(MACS) for p in found.points) < 1e6
    large = FrontPoint(factories.varied(), factories.measurement(99.9, 2e6, latency_stage="search"))
    for whole, unit in ((found, " kMACs "), (replace(found, points=(*found.points, large)), " MMACs ")):
        assert unit in text_of(front_table(whole))
        assert unit in text_of(plain_table(plain, whole))
        assert unit in text_of(front_table(replace(whole, points=whole.points[:1]), whole=whole))


def test_what_the_signs_mean_is_said_once():
    text = text_of(front_table(front()), width=160)
    assert text.count("± or (to): 95 % interval") == 1


@pytest.mark.parametrize("depth", [4, 24])
def test_no_number_unit_or_header_is_cut_at_80_columns(depth):
    rng = np.random.default_rng(0)
    space = parse_space(DEEP.replace("DEPTH", str(depth)), "deep.yaml")
    points = []
    for i in range(5):
        measured = factories.measurement(30.0 + i, 1e7 * (i + 1), 10.5 + i, 2_345_678.0)
        timed = replace(measured.latency["latency_ms"], noisy=True)
        changes = {"top1_interval": (19.0, 41.0 + i), "latency": {"latency_ms": timed, "latency_ms_2": timed}}
        points.append(FrontPoint(space.sample(rng), replace(measured, **changes), {"found_by": "3 of 5"}))
    shown = ParetoFront(OBJECTIVES, points)
    text = text_of(front_table(shown), width=80)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    for one in points:
        row = row_with(text, one.digest[:8])
        assert f"{one.value(TOP1):.1f} ± " in row
        assert row.count("~") == 2


DEEP = """
name: deep
backbone: {image_size: 16, patch_size: 4, num_classes: 10, head_dim: 8}
embed_dim: [16]
depth: DEPTH
layers: {num_tokens: [16], num_heads: [1, 2], mlp_ratio: [1, 2], attention: [dynamic]}
"""
