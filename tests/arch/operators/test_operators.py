"""The tables of operators: what a new file has to bring."""

import re
from pathlib import Path

import pytest

import nas
from nas.arch import operators
from nas.arch.operator import Reducer
from nas.arch.operators import ATTENTION, HALLUCINATION, REDUCERS, STEMS
from nas.space.genome import COST_RANKS

FOLDER = Path(operators.__file__).parent
FILES, STEM_FILES = ({path.stem for path in of.glob("*.py")} - {"__init__"} for of in (FOLDER, FOLDER / "stems"))
TABLES = [ATTENTION, REDUCERS, HALLUCINATION, STEMS]


@pytest.mark.parametrize("table", TABLES)
def test_an_operator_is_found_by_its_name(table):
    assert {name: operator.name for name, operator in table.items()} == {name: name for name in table}
    assert all(operator.words for operator in table.values())


def test_names_are_new_among_all_genes():
    assert len(COST_RANKS) == sum(map(len, TABLES))


@pytest.mark.parametrize("table", TABLES)
def test_ranks_say_which_is_cheaper(table):
    assert len({operator.rank for operator in table.values()}) == len(table)


def test_looks_and_colours_tell_operators_apart():
    looks = [look for kind in ATTENTION.values() for look in kind.looks]
    for told in ([look.name for look in looks], [look.glyph for look in looks], [look.colour for look in looks]):
        assert len(set(told)) == len(looks)
    assert len({reducer.colour for reducer in REDUCERS.values()}) == len(REDUCERS)


def test_every_attention_and_reducer_has_its_file_and_its_module():
    assert {*ATTENTION, *REDUCERS, "hallucination"} == FILES
    assert set(STEMS) == STEM_FILES
    modules = Path(nas.__file__).parent / "model" / "layers"  # to import them takes torch
    texts = {name: (modules / f"{name}.py").read_text() for name in (*ATTENTION, *REDUCERS)}
    assert [name for name, text in texts.items() if not re.search(r"^(def )?build\b", text, re.MULTILINE)] == []


def test_known_operators_keep_their_order():
    """Messages, legends, and the columns of the surrogate follow it."""
    known = {
        "dynamic",
        "static",
        "shared",
        "linear",
        "pool",
        "conv_pool",
        "glad",
        "copy",
        "mix",
        "mix_conv",
        "patch",
        "conv",
    }
    assert [[name for name in table if name in known] for table in TABLES] == [
        ["dynamic", "static", "shared", "linear"],
        ["pool", "conv_pool", "glad"],
        ["copy", "mix", "mix_conv"],
        ["patch", "conv"],
    ]


@pytest.mark.parametrize("reducer", REDUCERS.values(), ids=list(REDUCERS))
def test_what_keeps_the_grid_needs_it(reducer: Reducer):
    kept, square = reducer.keeps_grid, "leaves a square number of tokens, got 6 (C10)"
    assert reducer.broken(9, on_grid=True) == ""
    assert (reducer.broken(6, on_grid=True) == f"{reducer.name} {square}") is kept
    assert reducer.broken(9, on_grid=False).endswith("dissolved (C10)") is kept
