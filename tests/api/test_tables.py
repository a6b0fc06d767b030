import math

import nas
from nas.api.tables import front_frame, gene_row, trials_frame
from nas.base.metrics import metric_named
from nas.runs.directory import RunDirectory
from nas.runs.results import results_of


def test_a_row_is_a_trial_and_a_column_is_a_gene_that_the_space_leaves_open(folder):
    run = RunDirectory.open(folder / "r")
    frame = trials_frame(results_of(run))
    assert list(frame.index) == [trial.number for trial in run.trials()]
    for trial in run.trials():
        row = frame.loc[trial.number]
        assert row["digest"] == trial.architecture.digest
        assert row["depth"] == trial.architecture.depth
        assert row["layers.00.attention"] == trial.architecture.layers[0].attention
        if trial.architecture.depth == 1:
            assert row["layers.01.attention"] is None or math.isnan(row["layers.01.attention"])
        else:
            assert row["layers.01.num_heads"] == trial.architecture.layers[1].num_heads
    assert not {"name", "architecture", "layers.00.ffn_rank"} & set(frame.columns)


def test_the_front_has_its_values_their_units_and_all_open_genes(folder):
    found = results_of(RunDirectory.open(folder / "r"))
    frame = front_frame(found)
    assert list(frame.index) == [point.digest for point in found.front.points]
    assert list(frame.top1) == [point.measurement.top1 for point in found.front.points]
    assert {name for name, values in found.space.choices().items() if len(values) > 1} <= set(frame.columns)
    for name in ("top1", "macs", "latency_ms"):
        assert frame.attrs["units"][name] == metric_named(name).unit
    further = {
        "flops": "FLOPs/image",
        "latency_ratio": "of the largest architecture's",
        "latency_ci_low_ms": "ms/batch",
    }
    assert further.items() <= frame.attrs["units"].items()
    assert "embed_dim" not in frame.attrs["units"]
    assert trials_frame(found).attrs["units"]["seconds"] == "s"


def test_a_gene_without_effect_is_empty():
    space = nas.SearchSpace.from_yaml("digits")
    for architecture in (space.smallest(), space.largest()):
        row = gene_row(architecture, space)
        for i in range(len(space.layers)):
            reducer = row.get(f"layers.{i:02d}.reducer")
            assert reducer == (architecture.layers[i].reducer if i < architecture.depth else None)
