"""`tests/oldest.txt` names the oldest release that pyproject.toml allows of every dependency, and nothing else."""

import tomllib
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = [
    Requirement(text)
    for text in chain(PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    if not text.startswith(PROJECT["name"])
]
READERS = {"mypy", "ruff", "pandas-stubs", "mkdocs-material", "mkdocstrings"}
"""Packages that only read the code: the newest release judges, the oldest is of no use to anyone."""


def lower_bounds(requirement: Requirement) -> list[str]:
    return [str(part.version) for part in requirement.specifier if part.operator == ">="]


def pins() -> dict[str, str]:
    """Version by name in the file of constraints."""
    lines = (ROOT / "tests" / "oldest.txt").read_text().splitlines()
    parts = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(part) == 2 for part in parts), "a line is name==version"
    assert [part[0] for part in parts] == sorted(part[0] for part in parts)
    return dict(parts)


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_a_dependency_has_one_lower_bound_and_that_is_what_the_oldest_versions_name(requirement):
    name = canonicalize_name(requirement.name)
    if name in READERS:
        assert name not in pins()
    else:
        assert [pins().get(name)] == lower_bounds(requirement)


def test_the_oldest_versions_name_dependencies_only():
    assert set(pins()) == {canonicalize_name(r.name) for r in REQUIREMENTS} - READERS
