"""The study: levels, shapes, successive halving, paired statistics; and all of it once, small."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import pyarrow
import pytest
import study
import study_networks
import study_tables
import study_work
import tables
from pyarrow import parquet

from nas.arch import cost
from nas.space.designs import is_plain
from nas.space.space import SearchSpace

SPACE = Path(study.__file__).with_name("study_space.yaml")
SIZES = """name: NAME
backbone: {family: vit, image_size: 8, patch_size: 2, num_classes: auto, head_dim: 8, class_token: true}
embed_dim: [16, 24]
depth: [2, 3]
layers:
  num_heads: [2, 3]
  mlp_ratio: [1, 2, 4]
"""
OPERATORS = """  num_tokens: [16, 4]
  attention: [dynamic, static]
overrides: [{layers: first, num_tokens: 16}, {layers: last, attention: dynamic}]
"""


@pytest.fixture(scope="module")
def space():
    return SearchSpace.from_yaml(SPACE).with_num_classes(10)


def test_every_level_has_as_many_plain_shapes_as_are_trained_and_one_made_by_hand(space):
    for level in study_networks.LEVELS:
        shapes = study_networks.plain_shapes(space, level)
        assert len(set(shapes)) == study_networks.SHAPES
        assert all(is_plain(shape) and shape in space for shape in shapes)
        pooled = study_networks.by_hand(space, level)
        assert pooled in space
        assert [layer.num_tokens for layer in pooled.layers].count(64) == pooled.depth // 2
        random = study_networks.random_network(space, level, 0)
        assert random == study_networks.random_network(space, level, 0)
        for architecture in (*shapes, pooled, random):
            assert 0.75 * level <= cost.macs(architecture, space.backbone) / 1e6 <= level


def test_the_elastic_space_is_a_part_of_the_joint_one(space):
    elastic = SearchSpace.from_yaml(SPACE.with_name("study_elastic.yaml")).with_num_classes(10)
    assert (elastic.embed_dim, elastic.depth, elastic.backbone) == (space.embed_dim, space.depth, space.backbone)
    assert elastic.largest() in space
    assert elastic.smallest() in space


def test_shapes_are_spread_with_both_ends():
    assert study_networks.spread([1, 2], 6) == [1, 2]
    assert study_networks.spread(list(range(11)), 6) == [0, 2, 4, 6, 8, 10]


def test_halving_spends_the_budget_and_keeps_the_best():
    assert study_networks.rungs(12, 90) == [(12, 10), (4, 30), (1, 90)]
    counts, seconds = {7.0: 12, 10.0: 6}, {7.0: 1.0, 10.0: 2.0}
    epochs = study_networks.affordable(counts, seconds, 1000.0)

    def total(last):
        return sum(n * e * seconds[level] for level in counts for n, e in study_networks.rungs(counts[level], last))

    assert total(epochs) <= 1000 < total(epochs + 1)
    assert study_networks.affordable(counts, seconds, 1.0) == 1
    assert study_networks.survivors({"b": 50.0, "a": 50.0, "c": 60.0}, 2) == ["c", "a"]


def results(values):
    """Test top-1 by level, arm and seed, as `results_of` has them."""
    return {("d", "scratch", level, arm, seed): {"test": test} for (level, arm, seed), test in values.items()}


def test_the_first_images_are_a_file_of_their_own(tmp_path):
    whole = tmp_path / "all.parquet"
    parquet.write_table(pyarrow.table({"label": list(range(9))}), whole)
    out = tmp_path / "out"
    out.mkdir()
    spec = study_work.first_images(f"parquet:{whole},test.parquet", 4, out)
    assert spec == f"parquet:{out / 'all.parquet'},test.parquet"
    assert parquet.read_table(out / "all.parquet").to_pydict() == {"label": [0, 1, 2, 3]}
    with pytest.raises(SystemExit, match="is no parquet file"):
        study_work.first_images("digits", 4, out)


def test_differences_are_paired_by_seed_over_the_levels_that_both_have():
    found = results(
        {(7.0, "found", 0): 50, (7.0, "plain", 0): 48, (7.0, "found", 1): 40, (7.0, "plain", 1): 39}
        | {(10.0, "found", 0): 60, (10.0, "plain", 0): 54, (10.0, "plain", 1): 54}
    )
    assert study_tables.differences(found, "d", "scratch", 7.0, "found", "plain") == [2, 1]
    assert study_tables.differences(found, "d", "scratch", "all", "found", "plain") == [4, 1]
    assert study_tables.differences(found, "d", "inherited", "all", "found", "plain") == []
    assert set(study_tables.primary(found)) == {("d", "found")}


def test_p_values_are_corrected_by_holm():
    corrected = study_tables.holm({"a": 0.01, "b": 0.04, "c": 0.03})
    assert corrected == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})


def test_a_torn_line_is_written_over_and_failures_are_tried_again(tmp_path):
    lines = study_work.Lines(tmp_path)
    lines.add({"part": "alone", "error": "out of luck"})
    lines.add({"part": "alone", "seed": 1})
    with lines.path.open("a") as file:
        file.write('{"part": "al')
    assert study_work.Lines(tmp_path).of(part="alone") == [{"part": "alone", "seed": 1}]
    lines.add({"part": "test"})
    assert [json.loads(line).get("part") for line in lines.path.read_text().splitlines()] == ["alone", "alone", "test"]


def test_a_finalist_is_of_the_level_and_of_the_front_where_there_is_one(space, monkeypatch):
    one, two = study_networks.plain_shapes(space, 8.0)[:2]
    rows = [
        {"digest": a.digest, "macs": cost.macs(a, space.backbone), "trained": trained}
        for a, trained in ((one, [50.0, None]), (two, [40.0, 60.0]))
    ]
    run = SimpleNamespace(
        front=lambda: {"finalists": {"candidates": rows}},
        trials=lambda: [SimpleNamespace(architecture=a) for a in (one, two)],
    )
    monkeypatch.setattr(study_networks.ParetoFront, "from_dict", lambda _: SimpleNamespace(points=()))
    pick = study_networks.finalist_pick(run, 8.0)
    assert (pick.architecture, pick.on_front) == (two, False)
    assert study_networks.finalist_pick(run, 16.0) is None


@pytest.mark.slow
def test_the_whole_study_goes_on_where_it_was_and_ends_in_tables(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "REFERENCE", tmp_path / "reference")
    joint, sizes, out = tmp_path / "joint.yaml", tmp_path / "sizes.yaml", tmp_path / "out"
    joint.write_text(SIZES.replace("NAME", "joint") + OPERATORS)
    sizes.write_text(SIZES.replace("NAME", "sizes"))
    settings = ("train.batch_size=256", "train.warmup_epochs=0", "train.lr=0.01", "search.objectives=[top1, macs]")
    command = [
        "--data", "digits", "--seeds", "1", "--space", str(joint), "--elastic-space", str(sizes), "--out", str(out),
        "--kept", str(tmp_path / "kept"),
        "--levels", "0.11", "0.2", "--shapes", "2", "--rivals", "2", "--epochs", "1", "--trials", "12", "--count", "6",
        "--finalist-epochs", "1", "--alone-epochs", "1", "--budget", "0.1", "--processes", "1", "--rounds", "3",
        *(word for setting in (*settings, "evaluate.final_rounds=3") for word in ("--set", setting)),
    ]  # fmt: skip
    study.main([*command, "--part", "search", "alone", "equal-time", "table"])
    before = (out / "runs.jsonl").read_text()
    assert '"error"' not in before
    rows = list(csv.DictReader((tmp_path / "reference/study.csv").read_text().splitlines()[2:]))
    assert {"found", "plain", "hand", "random"} <= {row["arm"] for row in rows}
    assert (tmp_path / "reference/study.png").stat().st_size
    lines = [json.loads(line) for line in before.splitlines()]
    assert all(line["ended"] for line in lines if line["part"] == "search" and line["name"] != "steps")
    tested = [line for line in lines if line["part"] == "test" and line["name"] == "alone"]
    trained = {line["digest"] for line in lines if line["part"] == "alone"}
    assert len({line["digest"] for line in tested}) == len(tested) <= len(trained)
    study.main([*command, "--part", "search", "alone", "equal-time"])
    assert (out / "runs.jsonl").read_text() == before
    kept = tmp_path / "kept" / "results.jsonl"
    assert not kept.exists()
    study.main([*command, "--part", "latency", "table"])
    whole, table = kept.read_text(), (tmp_path / "reference/study.csv").read_text().splitlines()[2:]
    kinds = {json.loads(line)["kind"] for line in whole.splitlines()}
    assert kinds - {"equal time"} == {"network", "optimism"}  # a front may have no finalist at a level
    out.rename(tmp_path / "gone")  # what has ended needs no run
    study.main([*command, "--part", "search", "alone", "equal-time", "latency", "table"])
    assert kept.read_text() == whole
    assert (tmp_path / "reference/study.csv").read_text().splitlines()[2:] == table
