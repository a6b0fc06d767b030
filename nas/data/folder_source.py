"""Images in folders: which folders are splits, which are classes, and what becomes of all that lies there."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from nas.base import expanded, plural, read_bytes
from nas.data.samples import Part, Sample, Source, data_error, listed, missing_path
from nas.data.split_names import SPLITS, by_place, is_litter, natural_key, roles, spec_paths, split_of
from nas.settings import DataConfig

UNLABELLED = "unlabelled"
"""The class of images that have none."""

_IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".avif",
    ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip
_MOST_BYTES = 1 << 29  # of one image file
# What folders full of images are called: inside every class of Tiny ImageNet, or beside masks and annotations.
_CONTAINERS = {"images", "image", "imgs", "img", "jpegimages"}
_HINT = (
    "one folder a class: DIR/train/<class>/*.jpg with DIR/val and DIR/test beside it, or DIR/<class>/*.jpg alone; "
    "of other names: folder:TRAIN,TEST or folder:TRAIN,VALIDATION,TEST"
)


@dataclass
class _Tree:
    """A folder and all that is in it, without the litter of systems and tools."""

    path: Path
    folders: list["_Tree"] = field(default_factory=list)
    images: list[Path] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)  # files of other kinds by suffix, here and below

    @cached_property
    def all_images(self) -> list[Path]:
        """Those below, too, in order."""
        return sorted([*self.images, *(image for folder in self.folders for image in folder.all_images)])

    @property
    def classes(self) -> list["_Tree"]:
        """The folders in it that hold images, however deep, but for one that is called `images`."""
        found = [folder for folder in self.folders if folder.all_images]
        is_flat = len(found) == 1 and found[0].path.name.lower() in _CONTAINERS and not found[0].classes
        return [] if is_flat else found

    @property
    def splits(self) -> dict[str, list["_Tree"]]:
        """The folders in it that hold images and whose names say a split, by split."""
        found: dict[str, list[_Tree]] = {}
        for folder in self.classes:
            if (split := split_of(folder.path.name)) is not None:
                found.setdefault(split, []).append(folder.undoubled())
        return found

    @property
    def innermost(self) -> "_Tree":
        """Down to where there is a choice: what somebody means who names a folder too far up."""
        found = self.classes
        goes_on = len(found) == 1 and found[0].classes and split_of(found[0].path.name) is None
        return found[0].innermost if goes_on else self

    def undoubled(self) -> "_Tree":
        """The folder inside, where an archive was unpacked into a folder of its own name: `seg_train/seg_train`."""
        if len(self.classes) != 1 or self.images:
            return self
        name, inner = self.path.name, self.classes[0]
        is_same = inner.path.name == name or split_of(inner.path.name) == split_of(name) is not None
        return inner.undoubled() if is_same else self


def _names(folders: Sequence[_Tree]) -> str:
    return listed([folder.path.name for folder in folders])


def _scan(path: Path, litter: list[str], above: tuple[Path, ...] = ()) -> _Tree:
    tree, above = _Tree(path), (*above, path.resolve())
    with os.scandir(path) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            found = path / entry.name
            if is_litter(entry.name):
                litter.append(entry.name)
            elif entry.is_dir():
                if found.resolve() not in above:  # a link upwards has no end
                    tree.folders.append(_scan(found, litter, above))
                    tree.others += tree.folders[-1].others
            elif found.suffix.lower() in _IMAGE_SUFFIXES:
                tree.images.append(found)
            else:
                tree.others[found.suffix.lower()] += 1
    return tree


def folder_source(config: DataConfig) -> Source:
    """The source of `folder:DIR`, whose subfolders are classes or splits, or of `folder:TRAIN[,VALIDATION],TEST`.

    Raises:
        DataError: Everything that is wrong with the folders: missing, not understood, other classes in another split.
    """
    text = config.spec.partition(":")[2]
    litter: list[str] = []
    parts, notes, others = _parts(config.spec, text, litter)
    test, validation = roles(parts, config, notes)
    files, names = _classes(config, parts, notes)
    if others:
        kinds = listed([f"{kind or 'no suffix'} {count:,}" for kind, count in others.most_common()], 5)
        notes.append(f"{plural(others.total(), 'other file')} ignored ({kinds})")
    if litter:
        number = plural(len(litter), "system file or folder", "system files and folders")
        notes.append(f"{number} left out: {listed(sorted(set(litter)))}")

    return Source(
        f"folder {listed([text])}",
        names,
        _part(files["train"], names),
        _part(files[test], names) if test else None,
        _part(files[validation], names) if validation else None,
        notes=tuple(notes),
    )


def unlabelled_source(config: DataConfig) -> Source:
    """The source of `images:DIR`: every image below a folder, of no class, which is one class, `UNLABELLED`.

    Raises:
        DataError: There is no such folder, or no image in it.
    """  # noqa: DOC501 - `missing_path` and `data_error` are DataErrors
    text = config.spec.partition(":")[2]
    if not expanded(text).is_dir():
        raise missing_path(config.spec, expanded(text), "folder")
    files = {UNLABELLED: images_below(expanded(text))}
    if not files[UNLABELLED]:
        raise data_error(config.spec, [f"there is no image in {text}"])
    note = "no labels: top-1 is 100 % of every network, and `agreement` tells them apart"
    return Source(f"images {listed([text])}", (UNLABELLED,), _part(files, (UNLABELLED,)), None, None, notes=(note,))


def images_below(root: Path) -> list[Path]:
    """All image files in a folder, however deep, in order, without the litter of systems and tools."""
    return _scan(root, []).all_images


def split_folders(spec: str, root: Path) -> dict[str, Path]:
    """The folder of class folders of each split that there is in one folder; train is the folder itself without splits.

    Raises:
        DataError: The folder is not understood.
    """  # noqa: DOC501 - `data_error` is a DataError
    parts, _ = _found_parts(spec, _scan(root, []))
    problems = [text for (folder,) in parts.values() for text in _misplaced(folder, is_split=False)]
    if problems:
        raise data_error(spec, problems, hint=_HINT)
    return {split: folder.path for split, (folder,) in parts.items()}


# --- which folders are splits ---


def _parts(spec: str, text: str, litter: list[str]) -> tuple[dict[str, list[_Tree]], list[str], Counter[str]]:
    """The folders of class folders by split, what is to be said of them, and other files by suffix."""
    if "," not in text and not any(mark in text for mark in "*?[") and not expanded(text).is_dir():
        raise missing_path(spec, expanded(text), "folder")
    paths = spec_paths(spec, text, "folder")
    for path in paths:
        if not any(found.is_dir() for found in path.found):
            raise missing_path(spec, path.found[0], "folder")
    trees = [[_scan(found, litter) for found in path.found if found.is_dir()] for path in paths]
    others = sum((tree.others for one in trees for tree in one), Counter[str]())
    if len(paths) == 1 and not paths[0].is_glob:
        return *_found_parts(spec, trees[0][0]), others
    trees = [[tree.undoubled() for tree in one] for one in trees]
    names = [[split_of(found.name) for found in path.found if found.is_dir()] for path in paths]
    if len(paths) > 1:
        splits = by_place(spec, paths, names)
    else:
        trees, splits = [[tree] for tree in trees[0]], [name or "train" for name in names[0]]
        if any(names[0]) and not (all(names[0]) and "train" in splits):
            found = ", ".join(_titles(one) for one in trees)
            problem = f"all names that match have to say a split, with train among them, or none: {found}"
            raise data_error(spec, [problem], hint=_HINT)
    parts: dict[str, list[_Tree]] = {}
    for split, roots in zip(splits, trees, strict=True):
        parts.setdefault(split, []).extend(roots)
    return parts, [f"{split}: {_titles(roots)}" for split, roots in parts.items()], others


def _found_parts(spec: str, top: _Tree) -> tuple[dict[str, list[_Tree]], list[str]]:
    """Those of one folder, of which the names of folders in it say the splits."""
    splits, problems = top.splits, []
    claimed = [folder for folders in splits.values() for folder in folders]
    with_classes = [folder for folder in claimed if folder.classes]
    if not with_classes:
        if claimed and (len(claimed) == len(top.classes) or ("train" in splits and len(splits) > 1)):
            problem = f"{top.path} has {_names(claimed)}, but no train/ with a folder for each class"
            raise data_error(spec, [problem], hint=_HINT)
        return {"train": [top]}, []
    others = [folder for folder in top.classes if split_of(folder.path.name) is None]
    for split, folders in splits.items():
        if len(folders) > 1:
            problems.append(f"{_titles(folders)} claim one split, {split}")
        problems += [
            f"{folder.path} holds images, but no class folders"
            for folder in folders
            if not folder.classes and split != "test"
        ]
    if "train" not in splits:
        problems.append(f"{top.path} has {_names(with_classes)}, but no train/ with a folder for each class")
    elif len(splits) == 1 and others:
        problems.append(
            f"{splits['train'][0].path} has class folders, as a split does, and beside it are {_names(others)}: "
            "splits or classes?"
        )
    if problems:
        hint = f"{_HINT}; one split alone: folder:{with_classes[0].path}"
        raise data_error(spec, problems, hint=hint)
    parts = {split: splits[split] for split in SPLITS if split in splits}
    names = {split: f"{folder.path.relative_to(top.path)}/" for split, (folder,) in parts.items()}
    notes = [", ".join(f"{split} in {name}" for split, name in names.items())]
    if "test" in parts and not parts["test"][0].classes:
        (unlabelled,) = parts.pop("test")
        number = plural(len(unlabelled.all_images), "image")
        notes = [", ".join(f"{split} in {names[split]}" for split in parts)]
        notes.append(f"{names['test']} has {number} in no class folder, so no labels, and is not used")
    others = [folder for folder in top.folders if folder in others or not folder.all_images]
    notes += [f"{folder.path.name}/ is not used ({plural(len(folder.all_images), 'image')})" for folder in others]
    if top.images:
        notes.append(
            f"{plural(len(top.images), 'image')} beside the folders not used: {listed([i.name for i in top.images])}"
        )
    return parts, notes


def _titles(folders: Sequence[_Tree]) -> str:
    return listed([str(folder.path) for folder in folders])


# --- which folders are classes ---


def _classes(
    config: DataConfig, parts: Mapping[str, Sequence[_Tree]], notes: list[str]
) -> tuple[dict[str, dict[str, list[Path]]], tuple[str, ...]]:
    """Images by split and class, and the names of the classes in order; adds to what is to be said."""
    files: dict[str, dict[str, list[Path]]] = {}
    empty, inside = set[str](), list[str]()
    problems, hint = [], _HINT
    for split, roots in parts.items():
        of_class = files.setdefault(split, {})
        for root in roots:
            problems += _misplaced(root, is_split=len(parts) > 1)
            if root.images and len(parts) == 1:
                number = plural(len(root.images), "image")
                notes.append(f"{number} beside the class folders not used: {listed([i.name for i in root.images])}")
            empty |= {folder.path.name for folder in root.folders if not folder.all_images}
            for folder in root.classes:
                of_class.setdefault(folder.path.name, []).extend(folder.all_images)
                inside += [f"{folder.path.name}/{inner.path.name}" for inner in folder.classes]
    known = set[str]().union(*files.values())
    everywhere = known.intersection(*files.values())
    if small := known - everywhere:
        if config.skip_small_classes:
            notes.append(
                f"left out {plural(len(small), 'class', 'classes')} not in every split: {listed(sorted(small))}"
            )
            known = everywhere
        else:
            problems += _class_differences(parts, files)
            hint = "--set data.skip_small_classes=true leaves out classes that are not in every split"
            if len(parts) == len(SPLITS):
                hint += "; --set data.search_fraction=0.2 does without validation"
    if garbled := sorted(name for name in known if name.encode(errors="ignore").decode() != name):
        problems.append(f"class folders whose names are not UTF-8: {listed(garbled)}")
    if len(known) < 2:
        roots = parts["train"]
        found = _instead_of_classes(roots, sorted(known), sorted(empty - known))
        problems.append(f"at least 2 class folders are needed in {_titles(roots)}, found {len(known)}: {found}")
        nested = [folder for root in roots for folder in root.classes if folder.classes]
        hint = f'did you mean "folder:{nested[0].innermost.path}"?' if nested else _HINT
        if not known and any(root.all_images for root in roots):
            hint += f"; without labels: images:{roots[0].path}"
        if any(next(root.path.rglob("*.parquet"), None) for root in roots):
            hint = f'did you mean "parquet:{roots[0].path}"?'
    if problems:
        raise data_error(config.spec, problems, hint=hint)
    if inside := list(dict.fromkeys(inside)):
        number = plural(len(inside), "folder")
        notes.append(f"images of {number} inside class folders are of these classes: {listed(inside, 5)}")
    if gone := sorted(empty - known):
        notes.append(f"{plural(len(gone), 'class folder')} without images left out: {listed(gone)}")
    return files, tuple(sorted(known, key=natural_key))


def _instead_of_classes(roots: Sequence[_Tree], known: Sequence[str], empty: Sequence[str]) -> str:
    """What there is where fewer than two classes are, in words."""
    parts = [f"only {known[0]}"] if known else []
    if empty:
        number = plural(len(empty), "folder") + (" more" if known else "")
        parts.append(f"{number} without images ({listed(empty)})")
    loose = [image for root in roots for image in (root.images if known else root.all_images)]
    if loose:
        parts.append(f"{plural(len(loose), 'image')} in no class folder, such as {listed([loose[0].name])}")
    others = sum((root.others for root in roots), Counter[str]())
    if others and not known and not loose:
        kinds = listed([kind or "no suffix" for kind, _ in others.most_common()], 5)
        parts.append(f"{plural(others.total(), 'file')}, none of them an image ({kinds})")
    return ", ".join(parts) or "the folder is empty"


def _misplaced(root: _Tree, *, is_split: bool) -> list[str]:
    """What shows that the folders in `root` are no classes, or not all."""
    problems = []
    if is_split and root.images:
        number = plural(len(root.images), "image")
        problems.append(f"{root.path} has {number} in no class folder: {listed([image.name for image in root.images])}")
    inside = [{folder.path.name for folder in one.classes} for one in root.classes]
    owners = Counter(name for names in inside for name in names if name.lower() not in _CONTAINERS)
    shared = sorted(name for name, count in owners.items() if count > 1)
    said = [set(filter(None, map(split_of, names))) for names in inside]
    if sum(map(bool, said)) > 1 or max(map(len, said), default=0) > 1:
        problems.append(
            f"the class folders of {root.path} hold folders of splits: the splits have to be the outer folders"
        )
    elif 2 * sum(owners[name] for name in shared) >= owners.total() > 0 and not all(one.images for one in root.classes):
        # splits of unknown names lack a class here and there
        problems.append(
            f"the folders of {root.path} ({_names(root.classes)}) hold the same folders ({listed(shared)}): "
            "which are the classes?"
        )
    if containers := [one for one in root.classes if one.path.name.lower() in _CONTAINERS and len(root.classes) > 1]:
        others = [one for one in root.classes if one not in containers]
        problems.append(f"{root.path} has {_names(containers)} beside {_names(others)}: these are no classes")
    return problems


def _class_differences(
    parts: Mapping[str, Sequence[_Tree]], files: Mapping[str, Mapping[str, Sequence[Path]]]
) -> list[str]:
    pairs = [pair for split in files if split != "train" for pair in (("train", split), (split, "train"))]
    missing = [(one, other, sorted(set(files[one]) - set(files[other]))) for one, other in pairs]
    return [
        f"classes of {_titles(parts[one])} that {_titles(parts[other])} lacks: {listed(names)}"
        for one, other, names in missing
        if names
    ]


def _part(files: Mapping[str, Sequence[Path]], class_names: tuple[str, ...]) -> Part:
    paths = tuple(path for class_name in class_names for path in files[class_name])
    meaning = json.dumps([(class_name, len(files[class_name])) for class_name in class_names])
    return Part(lambda: _read(files, class_names), paths, meaning, len(paths))


def _read(files: Mapping[str, Sequence[Path]], class_names: tuple[str, ...]) -> Iterator[Sample]:
    for label, class_name in enumerate(class_names):
        for path in files[class_name]:
            try:
                yield Sample(str(path), label, read_bytes(path, _MOST_BYTES))
            except OSError as error:
                yield Sample(str(path), label, None, error.strerror or str(error))
