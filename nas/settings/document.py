"""What a person wrote, where each part of it is written, and everything that is wrong with it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator, model_validator

KeyPath = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)

MAX_SHOWN = 60  # characters of a wrong value that a message repeats


class Section(BaseModel):
    """A frozen group of keys: unknown keys are errors, nothing is an empty group, true is not a number.

    Attributes:
        removed: Keys of earlier versions and the defaults they had; with that value they are passed over.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    removed: ClassVar[Mapping[str, Any]] = {}

    @model_validator(mode="before")
    @classmethod
    def _present(cls, value: Any) -> Any:
        """The keys there are now; nothing is an empty group."""
        if value is None:
            return {}
        if isinstance(value, dict):
            return {name: v for name, v in value.items() if (name, v) not in cls.removed.items()}
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _switches_are_not_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        """Pydantic would read `epochs: true` as 1."""
        assert info.field_name is not None, "a field validator is called for a field"
        items = value if isinstance(value, list | tuple) else [value]
        if not _reads_switches(cls.model_fields[info.field_name].annotation):
            for item in items:
                if isinstance(item, bool):
                    raise ValueError(f"must not be true or false, got {shown(item)}")
        return value


def _reads_switches(annotation: Any) -> bool:
    """Whether what is annotated is true or false, or a list of such."""
    return annotation is bool or any(_reads_switches(part) for part in get_args(annotation))


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, where it is written (`line` 0: not in the file), and under which keys."""

    line: int
    text: str
    path: KeyPath = ()

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}" if self.line else self.text


@dataclass(frozen=True, slots=True)
class Document:
    """The content of a YAML file, and where each part of it is written.

    Attributes:
        source: The file's name, for messages.
        data: Plain values.
        lines: Line of every key and list item, by its path, such as `("overrides", 0, "layers")`.
        origins: What to say instead of a line, for values that did not come from the file.
        is_read: Whether the text could be read; what is missing in one that could not is not known.
    """

    source: str
    data: dict[str, Any] = field(default_factory=dict)
    lines: dict[KeyPath, int] = field(default_factory=dict)
    origins: dict[KeyPath, str] = field(default_factory=dict)
    is_read: bool = True

    def problem(self, path: KeyPath, text: str) -> Problem:
        """What is wrong at `path`, with its line, or the line of the nearest group that is written."""
        for end in range(len(path), 0, -1):
            if origin := self.origins.get(path[:end]):
                return Problem(0, f"{origin} {dotted(path)}: {text}", path)
            if line := self.lines.get(path[:end]):
                return Problem(line, f"{dotted(path)}: {text}", path)
        inside = (origin for known, origin in self.origins.items() if known[: len(path)] == path)
        where = f"{next(inside, '')} {dotted(path)}".strip() if path else ""
        return Problem(0, f"{where}: {text}" if where else text, path)

    def existing(self, path: KeyPath) -> KeyPath:
        """The part of `path` that is in the data."""
        value: Any = self.data
        for end, part in enumerate(path):
            known = range(len(value)) if isinstance(value, list) else value if isinstance(value, dict) else ()
            if part not in known:
                return path[:end]
            value = value[part]
        return path

    def with_value(self, path: KeyPath, value: Any, origin: str) -> "Document":
        """A copy with one value replaced, of a group only its keys; a ValueError where `path` leads to none."""
        if isinstance(value, dict) and (value or self.existing(path) == path):
            document = self
            for key, inner in value.items():
                document = document.with_value((*path, key), inner, origin)
            return document
        data = dict(self.data)
        group: Any = data
        for end, part in enumerate(path[:-1], start=1):
            inner = group.get(part)
            if inner is not None and not isinstance(inner, dict):
                raise ValueError(f"{dotted(path[:end])} is not a group of keys, it is {shown(inner)}")
            group[part] = group = dict(inner or {})
        group[path[-1]] = value
        lines = {known: line for known, line in self.lines.items() if known[: len(path)] != path}
        return Document(self.source, data, lines, {**self.origins, path: origin}, self.is_read)


def dotted(path: KeyPath) -> str:
    """A path as a reader would write it: `overrides[0].num_tokens`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def shown(value: Any, most: int = MAX_SHOWN) -> str:
    """A value as it looks in YAML, shortened to so many characters."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a group of keys"
    if isinstance(value, list | tuple):
        text = f"[{', '.join(shown(item, most) for item in value[:MAX_SHOWN])}]"
    else:
        text = repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


OTHER_NAMES = {
    "learning_rate": "lr",
    "wd": "weight_decay",
    "num_epochs": "epochs",
    "batch": "batch_size",
    "warmup": "warmup_epochs",
    "smoothing": "label_smoothing",
    "ema": "ema_decay",
    "gradient_clipping": "clip_grad",
    "metrics": "objectives",
    "algorithm": "sampler",
    "width": "embed_dim",
    "num_layers": "depth",
    "img_size": "image_size",
    "heads": "num_heads",
    "tokens": "num_tokens",
}
"""What some keys are called elsewhere."""

OPTIONS = {
    "trials": "--trials",
    "num_trials": "--trials",
    "minutes": "--minutes",
    "finalists": "--finalists",
    "workers": "--workers",
    "num_workers": "--workers",
    "storage": "--storage",
    "run": "--run",
    "output": "--run",
    "ray_address": "--ray-address",
    "supernet_trials": "--supernet-trials",
    "tensorboard": "--tensorboard",
}
"""What only decides how long or where a run goes on is no key of its configuration."""


def suggestion(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: the one that was probably meant, or nothing."""
    nearest = get_close_matches(word.lower(), list(known), n=1, cutoff=0.7)  # gpu is not cpu
    return f'; did you mean "{nearest[0]}"?' if nearest else ""


def in_order(problems: Iterable[Problem]) -> list[str]:
    """The messages of problems: by line, then those that are not in the file; equal ones once."""
    ordered = sorted(problems, key=lambda problem: (problem.line == 0, problem.line))
    return list(dict.fromkeys(map(str, ordered)))


def check(
    model: type[Model], document: Document, *, also_known: Sequence[str] = ()
) -> tuple[Model | None, list[Problem]]:
    """The document as an instance of `model`, or every reason why it is none.

    `also_known` are words to suggest for unknown keys of the top level, beside the model's own; those with a dot are
    suggested with their group.
    """
    try:
        return model.model_validate(document.data), []
    except ValidationError as error:
        details = error.errors(include_url=False)
    problems = []
    for detail in details:
        kind, loc, value = detail["type"], detail["loc"], detail["input"]
        limits = detail.get("ctx", {})
        if kind == "too_short" and len(value) >= limits["min_length"]:
            continue  # pydantic counts only the items that are right
        path = document.existing(loc)
        if kind == "extra_forbidden":
            problems.append(document.problem(path, _unknown_key(model, path, also_known)))
        elif kind == "missing" and isinstance(loc[-1], str):
            problems += [document.problem(loc, "required, but missing")] if document.is_read else []
        else:
            problems.append(document.problem(path, _wrong_value(kind, detail["msg"], value, limits)))
    return None, problems


def _wrong_value(kind: str, message: str, value: Any, limits: dict[str, Any]) -> str:
    if kind in ("enum", "literal_error"):
        known = [word.strip("'") for word in re.split(r", | or ", limits["expected"])]
        if len(known) == 1:
            return f"must be {known[0]}, got {shown(value)}"
        return f"{shown(value)} is not one of {', '.join(known)}{suggestion(str(value), known)}"
    if kind == "value_error":
        return str(limits["error"])
    if kind == "string_type" and not isinstance(value, dict | list | None):
        return f"must be text, got {shown(value)}; put it in quotes"
    rules = {
        "int": "must be a whole number",
        "int_parsing_size": "must be a smaller number",
        "float": "must be a number",
        "finite_number": "must be a finite number",
        "string_type": "must be text",
        "bool": "must be true or false",
        "greater_than": "must be more than {gt:g}",
        "greater_than_equal": "must be at least {ge:g}",
        "less_than": "must be less than {lt:g}",
        "less_than_equal": "must be at most {le:g}",
        "too_short": "needs at least {min_length} items",
        "too_long": "must have at most {max_length} items",
        "missing": "needs more items",
        "tuple_type": "must be a list, such as [a, b]",
        "list_type": "must be a list, such as [a, b]",
        "model_type": "must be a group of keys",
        "string_too_short": "must not be empty",
    }
    rule = rules.get(kind) or rules.get(kind.partition("_")[0])
    rule = rule.format(**limits) if rule else message[0].lower() + message[1:]
    return f"{rule}, got {shown(value)}".replace("at least 1 items", "at least one item")


def _unknown_key(model: type[BaseModel], path: KeyPath, also_known: Sequence[str]) -> str:
    group = _model_at(model, path[:-1])
    here = [name for name in also_known if "." not in name] if len(path) == 1 else []
    known = [*(group.model_fields if group else ()), *here]
    key = str(path[-1])
    if group is not None and issubclass(group, Section) and key in group.removed:
        return f"this option was removed; only its default, {shown(group.removed[key])}, is still read"
    meant = OTHER_NAMES.get(key.lower(), key)
    if meant in known and meant != key:
        return f'unknown key; did you mean "{meant}"?'
    if key in here:
        return "a key of the search space, which is not changed here"
    if near := suggestion(key, known):
        return f"unknown key{near}"
    inner = [*_inner_keys(model), *(name for name in also_known if "." in name)]
    if elsewhere := keys_named(key, inner):
        names = " or ".join(f'"{name}"' for name in elsewhere)
        return f"unknown key here; did you mean {names}?"
    if also_known and len(path) == 1 and key.lower() in OPTIONS:
        return f"no key, but an option: {OPTIONS[key.lower()]}"
    return f"unknown key; known here: {', '.join(known)}"


def keys_named(word: str, keys: Sequence[str], *, cutoff: float = 0.8) -> list[str]:
    """Of dotted keys those whose last part a person means by a word, which may be another program's, or misspelt.

    So much of its letters must be right; 1: all.
    """
    meant = OTHER_NAMES.get(word.lower(), word)
    last = {key: key.rpartition(".")[2] for key in keys}
    if found := [key for key in keys if last[key] == meant]:
        return found
    near = get_close_matches(word.lower(), sorted(set(last.values())), n=1, cutoff=cutoff)
    return [key for key in keys if near and last[key] == near[0]]


def _inner_keys(model: type[BaseModel]) -> list[str]:
    """Dotted names of all keys in the groups of a model; lists of groups are left out."""
    groups = {name: info.annotation for name, info in model.model_fields.items()}
    return [
        f"{name}.{key}"
        for name, group in groups.items()
        if isinstance(group, type) and issubclass(group, BaseModel)
        for key in group.model_fields
    ]


def _model_at(model: type[BaseModel] | None, path: KeyPath) -> type[BaseModel] | None:
    for part in path:
        if isinstance(part, str) and model is not None:
            info = model.model_fields.get(part)
            model = _group_of(info.annotation) if info else None
    return model


def _group_of(annotation: object) -> type[BaseModel] | None:
    """The model in an annotation such as `tuple[Override, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_group_of(inner) for inner in getattr(annotation, "__args__", ()))
    return next((group for group in found if group), None)
