"""Reading YAML: lines, traps, duplicates; and the words in which a document is refused."""

import math

import pytest
from documents import Outer, read
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.base.errors import InputFileError, SearchSpaceError
from nas.settings.document import check, in_order
from nas.settings.yaml_file import MAX_CHARACTERS, apply_settings, dump_yaml, read_yaml, scan_yaml


def unreadable(text: str) -> list[str]:
    """The problems of a text as YAML."""
    return in_order(scan_yaml(text, "a.yaml")[1])


class TestReading:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("1e-3", 0.001),
            ("300e6", 300e6),
            ("1E3", 1000.0),
            ("-.5", -0.5),
            ("1.", 1.0),
            (".inf", math.inf),
            ("-.inf", -math.inf),
            ("300_000", 300_000),
            ("010", 10),
            ("on", "on"),
            ("off", "off"),
            ("yes", "yes"),
            ("No", "No"),
            ("y", "y"),
            ("true", True),
            ("False", False),
            ("null", None),
            ("", None),
            ("1:30", "1:30"),
            ("2024-01-31", "2024-01-31"),
            ("0-1", "0-1"),
            ("0x10", "0x10"),
            ("'7'", "7"),
            ("1_", "1_"),
            ("=", "="),
            ("<<", "<<"),
            ("!!timestamp x", "x"),
        ],
    )
    def test_words_mean_what_yaml_1_2_says(self, text, value):
        found = read(f"key: {text}").data["key"]
        assert found == value
        assert type(found) is type(value)

    def test_not_a_number_is_a_number(self):
        assert math.isnan(read("key: .nan").data["key"])

    def test_every_key_and_item_has_its_line(self):
        document = read("a: 1\nb:\n  c:\n    - 5\n    - {d: 6}\n\ne: [1,\n  2]\n")
        assert document.data == {"a": 1, "b": {"c": [5, {"d": 6}]}, "e": [1, 2]}
        assert document.lines == {
            ("a",): 1,
            ("b",): 2,
            ("b", "c"): 3,
            ("b", "c", 0): 4,
            ("b", "c", 1): 5,
            ("b", "c", 1, "d"): 5,
            ("e",): 7,
            ("e", 0): 7,
            ("e", 1): 8,
        }

    def test_empty_text_is_an_empty_group(self):
        assert read("# nothing\n").data == {}

    def test_keys_are_text(self):
        assert read("1: a\ntrue: b").data == {"1": "a", "true": "b"}

    def test_aliases_are_followed(self):
        assert read("a: &x [1]\nb: *x").data == {"a": [1], "b": [1]}

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("a: 1\nb: [1, 2\nc: 3\n", "line 3: not YAML: while parsing a flow sequence"),
            ("a:\n\tb: 1\n", "line 2: not YAML: while scanning for the next token, found character '\\t'"),
            ("a: 1\n--- \nb: 2\n", "line 2: not YAML: expected a single document"),
            ("a: 1\nb: !!python/object:os.system x\n", "line 2: b: the tag 'python/object:os.system' is not read"),
            ("a: 1\nb: \x01\n", "line 2: not YAML: special characters are not allowed"),
            ("a: &x [*x]", "line 1: not YAML: its aliases never end"),
            ("- 1\n- 2\n", "line 1: the top level must be lines of `key: value`, got [1, 2]"),
            ("just words", "line 1: the top level must be lines of `key: value`, got 'just words'"),
            ("a: 1\n? [b, c]\n: 2\n", "line 2: a key must be one word"),
            ("a: " + "[" * 1000, "line 1: it is nested too deeply"),
            ("a: 1\nb: !!bool x\n", "line 2: b: 'x' cannot be read as bool"),
            (f"a: {'9' * 5000}", "line 1: a: '999"),
        ],
    )
    def test_what_is_not_yaml_is_refused_with_its_line(self, text, problem):
        found = unreadable(text)
        assert len(found) == 1
        assert found[0].startswith(problem)

    def test_aliases_cannot_unfold_without_bound(self):
        rows = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
        rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
        assert "aliases never end" in unreadable("\n".join(rows))[0]

    def test_a_text_of_many_pages_is_not_read(self):
        assert unreadable("a: 1\n" * MAX_CHARACTERS) == ["it has 1,000,000 characters, 200,000 are allowed"]

    def test_every_repeated_key_is_told(self):
        assert unreadable("a: 1\nb:\n  c: 1\n  c: 2\na: 3\na: 4\n") == [
            "line 4: b.c: key is given twice, first in line 3",
            "line 5: a: key is given twice, first in line 1",
            "line 6: a: key is given twice, first in line 1",
        ]


class TestFiles:
    def test_reads_a_file_with_a_byte_order_mark(self, tmp_path):
        (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
        assert read_yaml(tmp_path / "a.yaml").data == {"a": 1}

    def test_what_is_not_yaml_names_the_file_and_counts(self, tmp_path):
        (tmp_path / "a.yaml").write_text("a: 1\na: 2\n? [b]\n: 1\n")
        with pytest.raises(SearchSpaceError) as caught:
            read_yaml(tmp_path / "a.yaml", SearchSpaceError)
        assert caught.value.message.startswith(f"{tmp_path / 'a.yaml'}: 2 problems\n  line 2: a: key is given")

    def test_missing_file_names_its_neighbour(self, tmp_path):
        (tmp_path / "digits.yaml").touch()
        with pytest.raises(SearchSpaceError, match=r'no such file; did you mean "digits.yaml"\?'):
            read_yaml(tmp_path / "digit.yaml", SearchSpaceError)

    def test_missing_folder_is_no_traceback(self, tmp_path):
        with pytest.raises(InputFileError, match="no such file"):
            read_yaml(tmp_path / "none" / "a.yaml")

    def test_folder_is_refused(self, tmp_path):
        with pytest.raises(InputFileError, match="cannot be read: Is a directory"):
            read_yaml(tmp_path)

    def test_bytes_that_are_no_text_are_refused(self, tmp_path):
        (tmp_path / "a.yaml").write_bytes(b"a: \xff\xfe")
        with pytest.raises(InputFileError, match=r"not UTF-8 text \(byte 3\)"):
            read_yaml(tmp_path / "a.yaml")


class TestDumping:
    words = st.sampled_from(
        ["on", "off", "1e-3", "010", "1:30", "null", "~", "", "true", "- a", "a: b", "#", " x", "=", "<<"]
    )
    scalars = (
        words | st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("ab\n'\"é", max_size=4)
    )

    @settings(max_examples=100, deadline=None, derandomize=True)
    @given(st.dictionaries(words, scalars | st.lists(scalars, max_size=3), max_size=4))
    def test_what_is_written_reads_back_equal(self, values):
        found = read(dump_yaml(values)).data
        assert found == values
        assert repr(found) == repr(values)


class TestSettings:
    def test_setting_replaces_one_value_and_keeps_its_neighbours(self):
        before = read("inner: {ratio: 0.5, flag: true}")
        after, problems = apply_settings(before, ["inner.ratio=1e-1", "items=[{flag: true}]", "name="])
        assert not problems
        assert after.data == {"inner": {"ratio": 0.1, "flag": True}, "items": [{"flag": True}], "name": ""}
        assert before.data == {"inner": {"ratio": 0.5, "flag": True}}

    def test_group_as_a_value_sets_only_its_keys(self):
        before = read("inner: {ratio: 0.5, flag: true}")
        assert apply_settings(before, ["inner={ratio: 0}"])[0].data == {"inner": {"ratio": 0, "flag": True}}
        assert apply_settings(before, ["inner={}"])[0].data == before.data

    @pytest.mark.parametrize(
        ("setting", "problem"),
        [
            ("name", "--set name: must look like section.key=value"),
            ("a b=1", "--set a b=1: must look like section.key=value"),
            ("items.0.ratio=1", "--set items.0.ratio=1: items is not a group of keys, it is [a group of keys]"),
            ("name.x=1", "--set name.x=1: name is not a group of keys, it is 'y'"),
            ("inner.ratio=[1", "--set inner.ratio=[1: not YAML: while parsing a flow sequence"),
        ],
    )
    def test_setting_that_cannot_be_placed_is_told(self, setting, problem):
        before = read("name: y\nitems: [{ratio: 0}]")
        after, problems = apply_settings(before, [setting])
        assert [str(found).startswith(problem) for found in problems] == [True]
        assert after.data == before.data

    def test_wrong_value_of_a_setting_is_told_as_a_setting(self):
        document, _ = apply_settings(read("count: 5"), ["count=0", "inner.zzz=1", "innre.flag=true"])
        assert [str(problem) for problem in check(Outer, document)[1]] == [
            "--set count: must be at least 1, got 0",
            "--set inner.zzz: unknown key; known here: kind, ratio, flag",
            '--set innre: unknown key; did you mean "inner"?',
        ]


@pytest.mark.parametrize(
    "value", ["!!binary aGk=", "!foo 3", "!!set {a}", "!!omap [a: 1]", "!!map [1]", "!!seq {a: 1}", "!!pairs [a: 1]"]
)
def test_a_tag_that_makes_something_else_of_a_value_is_a_problem(value):
    (problem,) = unreadable(f"a: 1\nb: {value}")
    assert problem.startswith("line 2: b: the tag")


def test_a_huge_file_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "big.yaml").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InputFileError, match="more than 800,000 bytes"):
        read_yaml(tmp_path / "big.yaml")
