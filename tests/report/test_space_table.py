import io
import json
import re

import pytest
from report_runs import row_with, text_of
from rich.console import Console
from small_spaces import TINY

from nas.arch import cost
from nas.arch.architecture import Architecture
from nas.report.space_table import space_summary, space_table, spaces_table
from nas.space.designs import known_designs, plain_shapes
from nas.space.space import parse_space


@pytest.fixture
def space():
    return parse_space(TINY + "constraints: {max_params: 30000}\n", "tiny.yaml")


def test_a_summary_has_the_numbers_of_the_space(space):
    summary = space_summary(space)
    assert summary["schema_version"] == 1
    assert summary["name"] == "tiny"
    assert summary["architectures"] == space.size()
    assert summary["macs"] == list(space.macs_range())
    assert summary["params"] == list(space.params_range())
    assert summary["memory"] == list(space.memory_range())
    assert summary["layers"] == [1, 2]
    assert summary["num_classes_from_data"] is True
    assert summary["constraints"]["max_params"] == 30000


def test_extremes_can_be_read_back_and_cost_what_is_said(space):
    summary = space_summary(space)
    for name, architecture in (("smallest", space.smallest()), ("largest", space.largest())):
        said = summary[name]
        assert Architecture.from_dict(said["architecture"]) == architecture
        assert said["digest"] == architecture.digest
        assert said["macs"] == cost.macs(architecture, space.backbone)
        assert said["flops"] == 2 * said["macs"]
        assert said["params"] == cost.params(architecture, space.backbone)
        assert said["memory"] == said["peak_activation_bytes"] + 4 * said["params"]


def test_seeds_are_in_the_summary_and_in_the_table_with_their_costs(space):
    designs = known_designs(space, space.seeds)
    summary = space_summary(space)
    assert list(summary["seeds"]) == list(designs)
    for name, architecture in designs.items():
        said = summary["seeds"][name]
        assert Architecture.from_dict(said["architecture"]) == architecture
        assert (said["macs"], said["params"]) == (
            cost.macs(architecture, space.backbone),
            cost.params(architecture, space.backbone),
        )
    text = io.StringIO()
    Console(file=text, width=160).print(space_table(space_summary(space)))
    assert [name for name in designs if f"seed {name}" not in text.getvalue()] == []
    none = parse_space(TINY, "tiny.yaml", ("seeds=[]",))
    assert space_summary(none)["seeds"] == {}
    assert space_summary(none)["plain"] == []


def test_the_plain_shapes_that_a_search_races_are_counted(space):
    digests = [row["digest"] for row in space_summary(space)["plain"]]
    assert digests == [shape.digest for shape in plain_shapes(space)]
    text = io.StringIO()
    Console(file=text, width=160).print(space_table(space_summary(space)))
    assert re.search(rf"seeds plain .*{len(digests)} plain ViTs? of [\d.]+ to [\d.]+ kMACs", text.getvalue())


def test_a_bound_on_memory_is_told_and_kept():
    low, high = parse_space(TINY, "tiny.yaml").memory_range()
    bounded = parse_space(TINY, "tiny.yaml", (f"constraints.max_memory={(low + high) // 2}",))
    summary = space_summary(bounded)
    assert summary["constraints"]["max_memory"] == (low + high) // 2
    costs = [summary["smallest"], summary["largest"], *summary["seeds"].values()]
    assert low <= max(said["memory"] for said in costs) <= (low + high) // 2
    text = io.StringIO()
    Console(file=text, width=160).print(space_table(space_summary(bounded)))
    assert "max_memory" in text.getvalue()


def test_a_summary_is_json(space):
    assert json.loads(json.dumps(space_summary(space), allow_nan=False)) == space_summary(space)


def test_only_genes_with_a_choice_count(space):
    fixed = parse_space(TINY, "tiny.yaml", ("embed_dim=16", "depth=2"))
    assert space_summary(space)["parameters_of_the_search"] == space_summary(fixed)["parameters_of_the_search"] + 2


def test_the_table_says_size_costs_and_bounds(space):
    text = io.StringIO()
    Console(file=text, width=160).print(space_table(space_summary(space)))
    for words in ("tiny", f"{space.size():,}", "1 to 2", "MACs per image", "max_params", "30,000", "assumed"):
        assert words in text.getvalue()


def printed(space):
    text = io.StringIO()
    Console(file=text, width=160).print(space_table(space_summary(space)))
    return {line.split()[1]: line for line in text.getvalue().splitlines() if len(line.split()) > 2}


def test_under_bounds_each_range_says_whether_it_is_within_them():
    low, high = parse_space(TINY, "tiny.yaml").macs_range()
    rows = printed(parse_space(TINY, "tiny.yaml", (f"constraints.max_macs={(low + high) // 2}",)))
    assert "within the bounds" in rows["compute"]
    for name in ("parameters", "memory"):
        assert "before the bounds" in rows[name]
    assert "the bounds" not in "".join(printed(parse_space(TINY, "tiny.yaml")).values())


def test_notes_are_in_the_summary_and_in_the_table():
    open_priors = parse_space(TINY, "tiny.yaml", ("layers.attention=[dynamic, static, linear]", "depth=2"))
    assert space_summary(open_priors)["notes"] == [
        "fewer than 16 tokens in layers 0, 1 (prior C11)",
        "tokens may fall in layers 0, 1, before layer 2 (prior C12)",
        "tokens may fall in the last layer (prior C12)",
        "the last layer may be static (prior C13)",
    ]
    text = io.StringIO()
    Console(file=text, width=160).print(space_table(space_summary(open_priors)))
    assert text.getvalue().count("prior") == 4


def test_what_keeps_to_the_priors_has_no_notes():
    plain = parse_space(TINY, "tiny.yaml", ("layers.attention=dynamic", "layers.num_tokens=16"))
    assert space_summary(plain)["notes"] == []
    text = io.StringIO()
    Console(file=text, width=160).print(space_table(space_summary(plain)))
    assert "note" not in text.getvalue()


def test_a_space_too_large_to_look_for_its_memory_says_so(monkeypatch):
    monkeypatch.setattr("nas.space.bounds.MOST_STATES", 1)
    many = parse_space(TINY.replace("name: tiny", "name: many").replace("patch_size: 2", "patch_size: 1"), "many.yaml")
    summary = space_summary(many)
    assert summary["memory_is_exact"] is False
    ends = [summary[name]["memory"] for name in ("smallest", "largest")]
    assert summary["memory"][0] <= min(ends)
    assert summary["memory"][1] >= max(ends)
    text = io.StringIO()
    Console(file=text, width=160).print(space_table(summary))
    assert re.search(r"memory .*less than [\d.]+ to more than [\d.]+ .?B", text.getvalue())


def test_spaces_keep_names_numbers_and_weights_whole_at_80_columns():
    about = {"image_size": 224, "architectures": 2.4e31, "macs": [0.1492e9, 1.25e9], "params": [0.1281e6, 3.1234e6]}
    names = {"hmhsa_cffn_pvt": "deit_small_patch16_224", "digits": None}
    rows = [{"name": name, "weights": weights, **about} for name, weights in names.items()]
    text = text_of(spaces_table({"spaces": rows}), width=80)
    first = row_with(text, "hmhsa_cffn_pvt")
    assert first.split() == ["hmhsa_cffn_pvt", "224", "2.4e+31", "0.149", "to", "1.25", "G", "deit_small_patch16_224"]
    assert "0.128 to 3.12 M" in row_with(text_of(spaces_table({"spaces": rows}), width=120), "hmhsa_cffn_pvt")
    assert max(map(len, text.splitlines())) <= 80
