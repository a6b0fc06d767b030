"""What names say: which split a folder or file is of, what is a system's litter, which paths a spec stands for."""

import glob
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.base import DataError, expanded, plural
from nas.data.samples import data_error, listed, nearby
from nas.settings import DataConfig

SPLITS = ("train", "validation", "test")
"""In the order of a spec's paths."""

_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SPLIT_OF_WORD = {word: split for split, words in _WORDS.items() for word in words}
_WORD = re.compile(rf"({'|'.join(_SPLIT_OF_WORD)})(?:sets?|data|images?|imgs?|split)?")

_LITTER = {
    "__macosx", "@eadir", "@__thumb", "#recycle", "#snapshot", "$recycle.bin", "system volume information",
    "lost+found", "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini",
}  # fmt: skip
_MOST_COMMAS = 16  # of one path: it is looked for with all of them


def split_of(name: str) -> str | None:
    """The split that the name of a folder or file says: `train`, `validation`, `test`; None: none, or several.

    Its words count, in any case, between what is no letter and at a change to capitals, alone or with `set`, `data` or
    `images` behind: `train`, `Training`, `seg_train`, `TestSet`, `val2017`, `test-00000-of-00003`. As in Hugging
    Face's `datasets`, `dev` is validation and `eval` is test.
    """
    words = f"{name} {re.sub(r'(?<=[a-z])(?=[A-Z])', ' ', name)}".lower()
    found = (_WORD.fullmatch(word) for word in re.findall(r"[^\W\d_]+", words))
    splits = {_SPLIT_OF_WORD[match[1]] for match in found if match}
    return splits.pop() if len(splits) == 1 else None


def is_litter(name: str) -> bool:
    """Whether a file or folder is a system's or a tool's own: hidden, `__MACOSX`, `@eaDir`, `Thumbs.db`, ..."""
    return name.startswith(".") or name.lower() in _LITTER


def natural_key(name: str) -> tuple[list[int | str], str]:
    """Sorts 2 before 10. timm's own order, so that labels agree with timm's scripts on the same folder."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name.lower())], name


@dataclass(frozen=True, slots=True)
class SpecPath:
    """One of the paths of a data spec, and what is there."""

    written: str
    found: tuple[Path, ...]  # one path, or what a glob matches
    is_glob: bool

    @property
    def base(self) -> Path:
        """The folder that says nothing of splits: that of the file, or of the part of the glob without wildcards."""
        parts = expanded(self.written).parts
        fixed = next((place for place, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
        return Path(*parts[:fixed])


def spec_paths(spec: str, text: str, what: str) -> list[SpecPath]:
    """The paths and globs of a spec, parted at commas, also where a path holds commas of its own.

    `text` is what follows the spec's colon; `what` says what is looked for, such as `parquet file or folder`.

    Raises:
        DataError: Names every path that is not there, or that two of them share.
    """  # noqa: DOC501 - `data_error` is a DataError
    words, paths = text.split(","), []
    while words:
        ends = range(min(len(words), _MOST_COMMAS), 0, -1)
        path, end = next(
            (path, end) for end in ends if (path := _look(",".join(words[:end]).strip())).found or end == 1
        )
        paths.append(path)
        del words[:end]
    problems = [_missing(path, what) for path in paths if not path.found]
    owners: dict[Path, SpecPath] = {}
    for path in paths:
        for found in path.found:
            other = owners.setdefault(found.resolve(), path)
            if other is not path:
                problems.append(f"{found} is named twice, by {other.written} and by {path.written}")
    if problems:
        raise data_error(spec, problems, hint=f"relative paths start at {Path.cwd()}; a * stands for any characters")
    return paths


def is_there(written: str) -> bool:
    """Whether there is such a path, or something that the glob matches."""
    return bool(_look(written).found)


def _look(written: str) -> SpecPath:
    path = expanded(written)
    try:
        exists = bool(written) and path.exists()
    except OSError:
        exists = False  # the name is too long for one
    if exists or not glob.has_magic(written):
        return SpecPath(written, (path,) if exists else (), is_glob=False)
    matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207 - of any folder
    return SpecPath(written, tuple(match for match in matches if not is_litter(match.name)), is_glob=True)


def _missing(path: SpecPath, what: str) -> str:
    if not path.written:
        return "a path is empty: there is a comma too many"
    if glob.has_magic(path.written):
        return f"nothing matches {path.written}"
    return f"no such {what}: {path.written}{nearby(expanded(path.written))}"


def by_place(spec: str, paths: Sequence[SpecPath], names: Sequence[Collection[str | None]]) -> list[str]:
    """The split of each path of a spec: what all of them say, else TRAIN,TEST or TRAIN,VALIDATION,TEST.

    There are two paths or more; `names` are, of each, the splits that the names of what is there say.

    Raises:
        DataError: The names and the order of the paths contradict each other, or there are too many paths.
    """  # noqa: DOC501 - `data_error` is a DataError
    said = [next(iter(some)) if len(set(some)) == 1 else None for some in names]
    if all(said) and "train" in said:
        return [split or "" for split in said]
    form = spec.partition(":")[0]
    hint = f"write {form}:TRAIN,TEST or {form}:TRAIN,VALIDATION,TEST, each a path or a glob"
    if len(paths) > len(SPLITS):
        unclear = [path.written for path, split in zip(paths, said, strict=True) if split is None]
        says = f"these names say no split: {listed(unclear)}" if unclear else "no name says train"
        raise DataError(f"{spec}: of {len(paths)} paths the names have to say the splits; {says}", hint=hint)
    splits = list(SPLITS) if len(paths) == len(SPLITS) else ["train", "test"]
    problems = [
        f"{path.written} is in the place of {split}, but says {' and '.join(sorted(set(filter(None, some))))}"
        for path, split, some in zip(paths, splits, names, strict=True)
        if len(set(filter(None, some))) > 1 or ("train" in some and split != "train")
    ]
    if problems:
        raise data_error(spec, problems, hint=hint)
    return splits


def by_name(
    spec: str, paths: Iterable[Path], base: Path, *, is_chosen: bool
) -> tuple[dict[str, list[Path]], list[str]]:
    """Files by split, as the names of their folders below `base` and their own names say, as on the Hugging Face hub.

    The splits have `train` at least: files that all say one split, or none, are all of it; beside them, what is to be
    said of that. `is_chosen`: a glob named the files, so that which belong together was said.

    Raises:
        DataError: Some names say a split and others none, or several; or names of one split, or of none, differ by more
            than numbers; or folders beside each other hold the same splits, or no one says which belong together.
    """  # noqa: DOC501 - `data_error` is a DataError
    splits: dict[str, list[Path]] = {}
    owners: dict[str, set[str]] = {}
    kinds: dict[str, dict[str, str]] = {}  # of each split the names that differ by more than numbers, once each
    contradictory, unclear = [], []
    for path in paths:
        parts = path.relative_to(base).with_suffix("").parts
        said = [split_of(part) for part in parts]
        if len(set(filter(None, said))) > 1:
            contradictory.append(str(path.relative_to(base)))
            continue
        split = next(filter(None, said), "")
        if not split:
            unclear.append(str(path.relative_to(base)))
        splits.setdefault(split, []).append(path)
        place = next((i for i, one in enumerate(said) if one), len(parts) - 1)
        owners.setdefault("/".join(parts[:place]), set()).add(split)
        kinds.setdefault(split, {}).setdefault(_without_numbers(parts[place]), parts[place])
    problems = [f"names that say several splits: {listed(contradictory)}"] * bool(contradictory)
    if unclear and len(splits) > 1:
        problems.append(f"some names say a split, but these do not: {listed(unclear)}")
    hint = f"name the files of each split: {spec.partition(':')[0]}:TRAIN,TEST or TRAIN,VALIDATION,TEST"
    several = {
        split: list(names.values()) for split, names in kinds.items() if len(names) > 1 and (split or len(splits) == 1)
    }
    if several and len(owners) == 1 and not is_chosen:
        problems += [
            f"{listed(names)} {f'claim one split, {split}' if split else 'say no split: parts of one, or splits?'}"
            for split, names in several.items()
        ]
        hint += f", or what belongs together by a glob, such as {base}/*.parquet"
    if len(owners) > 1 and not is_chosen:
        names = sorted(name or "(no folder)" for name in owners)
        problems.append(f"{plural(len(owners), 'configuration')} beside each other: {listed(names)}")
        whole = f"parquet:{base / max(owners)}"
        hint = f"name one, such as {whole}, or what belongs together by a glob, such as DIR/*/*.parquet"
    if len(splits) > 1 and "train" not in splits:
        problems.append(f"files of {' and '.join(sorted(filter(None, splits)))}, but none of train")
    if problems:
        raise data_error(spec, problems, hint=hint)
    if len(splits) > 1:
        return splits, []
    ((only, files),) = splits.items()
    if only == "train":
        return splits, []
    return {"train": files}, [f"all files are train: {f'their names say {only}' if only else 'no name says a split'}"]


def _without_numbers(name: str) -> str:
    """What is the same for the shards of one table: a name without its numbers, and hexadecimal ones."""
    words = re.split(r"[\W_]+", name.lower())
    return " ".join(re.sub(r"\d+", "", word) for word in words if not re.fullmatch(r"[0-9a-f]*\d[0-9a-f]*", word))


def roles(splits: dict[str, Any], config: DataConfig, notes: list[str]) -> tuple[str | None, str | None]:
    """Which of the labelled splits tests, and which ranks candidates: validation where there is a test, too.

    A validation split that does neither is taken from `splits`; what is to be said is added to `notes`.
    """
    if "validation" in splits and "test" not in splits:
        notes.append("validation is the test split")
        return "validation", None
    if "validation" in splits and config.search_fraction is not None:
        del splits["validation"]
        notes.append("validation is not used: data.search_fraction is set")
    return "test" if "test" in splits else None, "validation" if "validation" in splits else None
