"""Sections of a document, nested, with every kind of value."""

from typing import Annotated, Literal

from pydantic import Field

from nas.settings.document import Document, Section
from nas.settings.yaml_file import scan_yaml


class Inner(Section):
    kind: Annotated[tuple[Literal["dynamic", "static"], ...], Field(min_length=1)] = ("dynamic",)
    ratio: float = Field(0.0, ge=0, lt=1)
    flag: bool = False


class Outer(Section):
    name: str = "x"
    count: int = Field(1, ge=1)
    pair: tuple[float, float] = (0.0, 1.0)
    limit: int | None = None
    inner: Inner = Inner()
    items: tuple[Inner, ...] = ()


def read(text: str) -> Document:
    """A text without problems."""
    document, problems = scan_yaml(text, "a.yaml")
    assert not problems
    return document
