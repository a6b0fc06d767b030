"""Where the paths of a configuration lead: one rule for all of them.

A relative path starts at the folder in which its command was typed, wherever it is written: as an option, in `--set`,
or in a file. `~` is a home. The run remembers that folder, so it is found from elsewhere, too.
"""

import filecmp
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.base import expanded
from nas.settings.config import RunConfig
from nas.settings.target import PROFILE

_WRITTEN = re.compile(r"(?!timm:|hf-hub:)(file:|local-dir:|profile:|)(.+)", re.DOTALL)


def located(config: RunConfig, folders: Sequence[Path]) -> RunConfig:
    """A configuration whose paths lead from anywhere, but for those of images.

    Each starts at the first of the folders from where it leads to something; what leads nowhere stays as it is written.
    """
    targets = [located_path(text, folders) if text.startswith(PROFILE) else text for text in config.evaluate.targets]
    seeds = [located_path(text, folders) for text in config.search.seed_runs]
    return config.model_copy(
        update={
            "init": located_path(config.init, folders),
            "teacher": located_path(config.teacher, folders),
            "evaluate": config.evaluate.model_copy(update={"targets": tuple(targets)}),
            "search": config.search.model_copy(update={"seed_runs": tuple(seeds)}),
        }
    )


def located_path(text: str, folders: Sequence[Path]) -> str:
    """As `located`, of one value: `file:PATH`, `local-dir:DIR`, `profile:FILE` or a path; others stay as they are."""
    if not (match := _WRITTEN.fullmatch(text)):
        return text
    kind, path = match[1], expanded(match[2])
    places = (folder / path for folder in folders)
    return kind + str(next((place for place in places if _is_there(place)), path))


def same_places(ours: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """The flat values that are asked, with our text for paths that lead to the same, or to a file of the same content.

    Both are of located configurations.
    """

    def same(our: Any, other: Any) -> Any:
        if isinstance(our, list) and isinstance(other, list) and len(our) == len(other):
            return [same(*pair) for pair in zip(our, other, strict=True)]
        if not (isinstance(our, str) and isinstance(other, str)):
            return other
        one, two = _WRITTEN.fullmatch(our), _WRITTEN.fullmatch(other)
        return our if one and two and one[1] == two[1] and _agree(Path(one[2]), Path(two[2])) else other

    keys = ("init", "teacher", "evaluate.targets", "search.seed_runs")
    return {**asked, **{key: same(ours[key], asked[key]) for key in keys if key in ours and key in asked}}


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # such as a name of 300 characters, or one with a NUL
        return False


def _agree(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other) or (one.is_file() and other.is_file() and filecmp.cmp(one, other, shallow=False))
    except (OSError, ValueError):
        return False
