"""What a program gives as an architecture, and errors with their hints."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from nas.arch import Architecture
from nas.base import ConfigError, NasError, temporary_folder

Given = ParamSpec("Given")
Result = TypeVar("Result")


def hinted(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """The function, whose errors say what to do also where Python shows them."""

    @wraps(function)
    def told(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        try:
            return function(*args, **kwargs)
        except NasError as error:
            if error.hint:
                error.add_note(f"hint: {error.hint}")
            raise

    return told


@contextmanager
def pick_of(architecture: Any) -> Iterator[str]:
    """What the command line takes for an architecture: a text, or the path of a file of it."""
    given = given_architecture(architecture)
    with temporary_folder("architecture") as folder:
        if isinstance(given, Architecture):
            (folder / "architecture.json").write_text(given.to_json())
            given = str(folder / "architecture.json")
        yield given


def given_architecture(architecture: Any) -> Architecture | str:
    """An architecture, or the text that stands for one; a ConfigError: it is neither."""
    if isinstance(architecture, Mapping):
        return Architecture.from_dict(dict(architecture))
    if isinstance(architecture, Architecture | str):
        return architecture
    if isinstance(architecture, Path):
        return str(architecture)
    hint = "a nas.Architecture, its to_dict(), or text such as knee, a digest, the path of a file"
    raise ConfigError(f"architecture: {architecture!r:.80} is none", hint=hint)
