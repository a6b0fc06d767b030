import csv
import io
import json
import math
import subprocess
import sys
from pathlib import Path

from report_runs import row_with, text_of

from nas.report.table import Column, Markup, Table, csv_text

ROOT = Path(__file__).resolve().parents[2]

COLUMNS = (Column("network"), Column("top-1 (%)", "{:.1f}", footer="best"), Column("note", wraps=True))


def test_numbers_are_formatted_and_right_words_are_left_and_what_is_missing_is_a_dash():
    table = Table(title="t", columns=COLUMNS, rows=[("a", 91.26, "fine"), ("b", None, ""), ("c", math.nan, "")])
    text = text_of(table)
    assert row_with(text, "fine") == "  a              91.3   fine  "
    assert [row_with(text, f" {name} ").split() for name in "bc"] == [["b", "-"], ["c", "-"]]
    assert row_with(text, "best") == "                 best         "


def test_words_of_a_column_of_numbers_stay_as_they_are():
    assert Column("x", "{:.3f}").text("1.5 ± 0.2") == "1.5 ± 0.2"


def test_an_empty_row_is_a_gap_and_the_caption_has_a_line_each():
    table = Table(title="t", rows=[("a", "1"), (), ("b", "2")], caption=["one", "two"])
    lines = [line.split() for line in text_of(table).splitlines()]
    assert lines.index(["b", "2"]) == lines.index(["a", "1"]) + 2
    assert lines[-2:] == [["one"], ["two"]]


def test_words_that_are_too_long_go_on_in_the_next_line_and_nothing_is_cut():
    words = "an explanation that is longer than the terminal"
    shown = text_of(Table(title="", columns=COLUMNS, rows=[("a", 1.0, words)]), width=40)
    assert all(word in shown for word in words.split())
    assert max(map(len, shown.splitlines())) <= 40


WIDE = (
    Column("network"),
    Column("top-1 (%)", "{}"),
    Column("share", "{}", spare=1),
    Column("of all that is", "{}", spare=2),
)
CELLS = ("a" * 12, "84.0 ± 4.7", "10.0 %", "123.45")


def test_headers_break_between_words_before_columns_stand_close_and_those_that_are_spare_are_left_out():
    def shown(width):
        text = text_of(Table(title="", columns=WIDE, rows=[CELLS], caption=["end"]), width)
        assert max(map(len, text.splitlines())) <= width
        assert CELLS[0] in text
        assert CELLS[1] in text
        return text

    assert "of all that is" in shown(55)
    broken = shown(47)
    assert "of all" in broken
    assert "of all that" not in broken
    assert row_with(broken, CELLS[0]) == "  aaaaaaaaaaaa   84.0 ± 4.7   10.0 %   123.45  "
    assert row_with(shown(37), CELLS[0]) == "aaaaaaaaaaaa 84.0 ± 4.7 10.0 % 123.45"
    without = shown(36)
    assert row_with(without, CELLS[0]) == "aaaaaaaaaaaa 84.0 ± 4.7 10.0 %"
    assert "no room here for: of all that is" in " ".join(without.split())
    assert "10.0 %" not in shown(26)


def test_at_last_the_rows_stand_one_below_the_other():
    lines = text_of(Table(title="t", columns=WIDE, rows=[CELLS]), width=22).splitlines()
    assert lines == ["t", "", *(f"{column.header}  {cell}" for column, cell in zip(WIDE, CELLS, strict=True))]


def test_a_title_is_broken_only_by_the_edge_of_the_terminal():
    title = "a title that is wider than what stands below it"
    assert title in text_of(Table(title=title, rows=[("a", "b")]), width=60).splitlines()
    assert row_with(text_of(Table(title="t", rows=[("a", "b")]), width=60), "t").startswith("   ")


def test_csv_has_the_columns_asked_for_first_and_nested_values_as_json():
    rows = [{"a": 1, "b": {"c": [2]}}, {"a": None, "d": "x"}]
    found = list(csv.DictReader(io.StringIO(csv_text(rows, ["d"]))))
    assert list(found[0]) == ["d", "a", "b"]
    assert json.loads(found[0]["b"]) == {"c": [2]}
    assert found[1] == {"d": "x", "a": "", "b": ""}
    assert csv_text([], ["a", "b"]) == "a,b\n"


def test_looking_at_results_imports_nothing_heavy():
    code = (
        "import sys, nas.report, nas.runs\n"
        "heavy = {'torch', 'timm', 'ray', 'optuna', 'pandas', 'matplotlib', 'rich'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_what_others_wrote_is_shown_as_it_is_and_neither_obeyed_nor_styled():
    hostile = "\x1b[31m[bold]x[/] [/nothing] \x9b2J\u202e"
    shown = r"\x1b[31m[bold]x[/] [/nothing] \x9b2J\u202e"
    table = Table(title=hostile, columns=(Column(hostile),), rows=[(hostile,)], caption=[hostile])
    text = text_of(table, width=200)
    assert text.count(shown) == 4
    assert "\x1b" not in text
    assert "[bold]" not in text_of(Table(title="", rows=[(Markup("[bold]total[/]"), "1")]))
