"""What CONTRIBUTING.md, CHANGELOG.md, CITATION.cff and the Makefile name is there."""

import ast
import re
import runpy
import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def code_spans(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", text)


def test_every_law_names_tests_that_there_are():
    rows = re.findall(r"^\| (\d+)\. .+ \| (.+) \|$", CONTRIBUTING, flags=re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 11))
    for _, guards in rows:
        for guard in code_spans(guards):
            file, _, name = guard.partition("::")
            names = {n.name for n in ast.walk(ast.parse((ROOT / file).read_text())) if hasattr(n, "name")}
            assert name in names, guard
        assert code_spans(guards)


def test_the_floors_are_those_of_the_law():
    floors = runpy.run_path(str(ROOT / "tests" / "test_house.py"))["FLOORS"]
    rows = re.findall(r"^\| (\d) \| (.+?):", CONTRIBUTING, flags=re.MULTILINE)
    assert {int(number): set(code_spans(names)) for number, names in rows} == dict(enumerate(floors, 1))


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "CHANGELOG.md"])
def test_every_file_that_is_named_exists(page):
    text = (ROOT / page).read_text()
    linked = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target]
    spans = [word for span in code_spans(text) for word in span.split()]
    named = [word.partition("::")[0] for word in spans if re.match(r"(nas|tests|docs|results)/[^*]*$", word)]
    assert linked
    for target in linked + named:
        assert (ROOT / target).exists(), target


def test_make_has_at_most_five_targets_and_each_that_is_named():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert len(targets) <= 5
    assert set(re.findall(r"`make (\w+)`", CONTRIBUTING)) <= set(targets)


def test_citation_and_changelog_are_of_this_version():
    citation = YAML(typ="safe").load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["version"] == VERSION
    assert re.search(rf"^## {re.escape(VERSION)} - ", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
