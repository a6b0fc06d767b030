"""The search spaces that come with the program: by name, wherever it is installed."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from nas.base import InputFileError, spaces_folder
from nas.settings.document import suggestion
from nas.settings.yaml_file import read_text

SUFFIX = ".yaml"


@cache
def shipped_spaces() -> Mapping[str, Path]:
    """Their files by name."""
    return {path.stem: path for path in sorted(spaces_folder().glob(f"*{SUFFIX}"))}


def read_space_text(space: str | Path, error: type[InputFileError] = InputFileError) -> str:
    """The YAML of a search space, by the path of its file or by the name of one that comes with the program.

    Raises:
        InputFileError: There is neither, as `error`; lists the names.
    """
    known = shipped_spaces()
    if (found := known.get(str(space))) is not None and not Path(space).is_file():
        return read_text(found, error)
    if str(space) == Path(space).name and not Path(space).exists():
        problem = f"neither a file nor a space that comes with the program{suggestion(str(space), known)}"
        siblings = sorted(path.name for path in Path().glob("*.y*ml"))
        problem += suggestion(str(space), siblings) if "?" not in problem else ""
        raise error(space, [problem], hint=f"the path of a YAML file, or one of {', '.join(known)}")
    return read_text(space, error)
