"""The `tune` section: what supernet trials vary, how they are compared, and when a bad one is stopped."""

import json
from collections.abc import Iterator
from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, Field, model_validator

from nas.settings.document import Document, Section, check, shown, suggestion

TRAIN, SPACE = "train", "space"
FIXED = {
    "epochs": "all trials train equally long, and bad ones are stopped earlier; set train.epochs itself",
    "checkpoint_minutes": "it changes no result",
}
"""Keys of `train` that trials cannot vary, and why."""


class Range(Section):
    """Numbers from `low` to `high`, both included; `log`: evenly over their logarithms."""

    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _is_a_range(self) -> "Range":
        if not self.low < self.high:
            raise ValueError(f"low must be less than high, got {self.low:g} and {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"low must be more than 0 where log is true, got {self.low:g}")
        return self


def _read_domain(value: Any) -> "Range | tuple[Any, ...]":
    if isinstance(value, Range):
        return value
    if isinstance(value, dict):
        found, problems = check(Range, Document("range", value))
        if found is None:
            raise ValueError("; ".join(problem.text for problem in problems))
        return found
    if not isinstance(value, list | tuple):
        raise ValueError(f"must be a list of choices, or {{low: ..., high: ..., log: true}}, got {shown(value)}")
    texts = [json.dumps(choice, default=str) for choice in value]
    if not texts:
        raise ValueError("needs at least one choice")
    if len(set(texts)) < len(texts):
        raise ValueError(f"names a choice twice: {shown(value)}")
    return tuple(value)


def _flat(value: Any) -> Any:
    """Dotted keys of nested groups, as `--set tune.parameters.train.lr={...}` writes them."""
    if not isinstance(value, dict):
        return value
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, dict) and not set(inner) & set(Range.model_fields) and "." not in key:
            flat |= {f"{key}.{rest}": domain for rest, domain in _flat(inner).items()}
        else:
            flat[key] = inner
    return flat


Domain = Annotated[Range | tuple[Any, ...], BeforeValidator(_read_domain)]


class TuneConfig(Section):
    """How `--supernet-trials` tries training hyper-parameters and sub-spaces."""

    parameters: Annotated[dict[str, Domain], BeforeValidator(_flat), Field(min_length=1)] = Field(
        {
            "train.lr": Range(low=1e-4, high=8e-3, log=True),
            "train.weight_decay": Range(low=0.01, high=0.2, log=True),
            "train.num_random": (1, 2, 3),
            "train.drop_path": (0.0, 0.05, 0.1),
        },
        description="`train.KEY` or `space.KEY` (a sub-space) -> list of choices, or `{low, high, log}`; "
        "unless given: train.lr, train.weight_decay, train.num_random and train.drop_path",
    )
    keep: int = Field(
        2, ge=1, le=10_000, description="supernets that are searched, best score first; they share --trials"
    )
    probes: int = Field(
        12, ge=2, le=10_000, description="subnets, evenly over the MACs range, whose hypervolume is a supernet's score"
    )
    grace: int | None = Field(
        None, ge=1, le=1_000_000, description="epochs before a trial can be stopped; null: train.epochs / reduction^2"
    )
    reduction: int = Field(
        3, ge=2, le=1_000_000, description="at each rung, the best 1 in so many go on; the next is so many times later"
    )

    def rungs(self, epochs: int) -> list[int]:
        """Epochs after which a supernet is scored and may be stopped; the last is the end of its training."""
        rung = min(self.grace or max(epochs // self.reduction**2, 1), epochs)
        found = []
        while rung < epochs:
            found.append(rung)
            rung *= self.reduction
        return [*found, epochs]


def is_whole(train: type[Section], name: str) -> bool:
    """Whether a key holds whole numbers."""
    annotation = train.model_fields[name].annotation
    kinds = {annotation, *get_args(annotation)}
    return int in kinds and float not in kinds


def candidate_problems(tune: TuneConfig, train: Section) -> Iterator[tuple[str, str]]:
    """Every key, and what is wrong with it or with one of its candidates, put into the recipe one at a time."""
    for key, domain in tune.parameters.items():
        group, _, name = key.partition(".")
        if group == SPACE and name:
            if isinstance(domain, Range):
                yield key, "must be a list of choices, each a value of that key of the space"
        elif group != TRAIN or name not in type(train).model_fields:
            known = [f"{TRAIN}.{field}" for field in type(train).model_fields if field not in FIXED]
            yield key, f"not train.KEY or space.KEY of the space{suggestion(key, known)}"
        elif name in FIXED:
            yield key, f"cannot be varied: {FIXED[name]}"
        else:
            candidates = (domain.low, domain.high) if isinstance(domain, Range) else domain
            for value in candidates:
                _, problems = check(type(train), Document("", {**train.model_dump(), name: value}))
                yield from ((key, problem.text.removeprefix(f"{name}: ")) for problem in problems)


def baseline(tune: TuneConfig, train: Section) -> dict[str, Any] | None:
    """The configuration as it is, as the first trial; None where it lies outside the domains."""
    found = {}
    for key, domain in tune.parameters.items():
        group, _, name = key.partition(".")
        if group != TRAIN:
            return None
        value = getattr(train, name)
        if isinstance(domain, Range):
            if not isinstance(value, int | float) or not domain.low <= value <= domain.high:
                return None
        elif value not in domain:
            return None
        found[key] = value
    return found
