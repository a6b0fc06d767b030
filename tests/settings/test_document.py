"""What a document holds is checked at once: every problem with its line, its rule and the value."""

import pytest
from documents import Inner, Outer, read

from nas.settings.document import Document, Section, check, in_order


def outer(text: str) -> Outer | None:
    return check(Outer, read(text))[0]


def refused(text: str) -> list[str]:
    """The problems for which `text` is no `Outer`."""
    instance, problems = check(Outer, read(text))
    assert instance is None
    return in_order(problems)


class TestChecking:
    def test_legal_document_becomes_the_model(self):
        text = "name: y\ninner: {kind: [static], ratio: 5e-1, flag: true}\nlimit: null\nitems:\n- ratio: 0\n"
        found = outer(text)
        assert found == Outer(name="y", inner=Inner(kind=("static",), ratio=0.5, flag=True), items=(Inner(),))

    def test_group_without_keys_is_at_its_defaults(self):
        assert outer("inner:\n  # flag: true\n") == Outer()

    def test_all_problems_are_told_in_the_order_of_the_file(self):
        text = "\n".join(
            [
                "count: 0",
                "inner:",
                "  kind: [dynamic, statik]",
                "  ratoi: 0.5",
                "items:",
                "  - {ratio: 1}",
                "  - ratio: half",
                "pair: [1]",
                "nmae: z",
            ]
        )
        assert refused(text) == [
            "line 1: count: must be at least 1, got 0",
            "line 3: inner.kind[1]: 'statik' is not one of dynamic, static; did you mean \"static\"?",
            'line 4: inner.ratoi: unknown key; did you mean "ratio"?',
            "line 6: items[0].ratio: must be less than 1, got 1",
            "line 7: items[1].ratio: must be a number, got 'half'",
            "line 8: pair: needs more items, got [1]",
            'line 9: nmae: unknown key; did you mean "name"?',
        ]

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("count: true", "count: must not be true or false, got true"),
            ("pair: [0, true]", "pair: must not be true or false, got true"),
            ("count: 1.5", "count: must be a whole number, got 1.5"),
            ("count: many", "count: must be a whole number, got 'many'"),
            ("count:", "count: must be a whole number, got nothing"),
            ("count: {a: 1}", "count: must be a whole number, got a group of keys"),
            ("count: .inf", "count: must be a finite number, got inf"),
            ("limit: 1e400", "limit: must be a finite number, got inf"),
            ("pair: 3", "pair: must be a list, such as [a, b], got 3"),
            ("pair: [1, 2, 3]", "pair: must have at most 2 items, got [1, 2, 3]"),
            ("name: 1e3", "name: must be text, got 1000.0; put it in quotes"),
            ("name: [a]", "name: must be text, got ['a']"),
            ("inner: 5", "inner: must be a group of keys, got 5"),
            ("inner: {flag: maybe}", "inner.flag: must be true or false, got 'maybe'"),
            ("inner: {kind: []}", "inner.kind: needs at least one item, got []"),
            ("inner: {kind: [5]}", "inner.kind[0]: 5 is not one of dynamic, static"),
            ("flag: true", 'flag: unknown key here; did you mean "inner.flag"?'),
            ("zzz: 1", "zzz: unknown key; known here: name, count, pair, limit, inner, items"),
            (f"name: [{'a' * 99}]", f"name: must be text, got ['{'a' * 55}..."),
        ],
    )
    def test_says_the_rule_and_the_value_in_plain_words(self, text, problem):
        assert refused(text) == [f"line 1: {problem}"]

    def test_missing_key_is_told_at_its_group(self):
        class Needs(Section):
            size: int

        class Holder(Section):
            group: Needs

        document = read("\ngroup: {}\n")
        assert [str(problem) for problem in check(Holder, document)[1]] == ["line 2: group.size: required, but missing"]
        assert [str(problem) for problem in check(Holder, Document("a"))[1]] == ["group: required, but missing"]
