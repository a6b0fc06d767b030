"""The section `search` of a configuration: what is optimised, and who proposes architectures."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticKnownError

from nas.base import AGREEMENT, AT_LEAST, Direction, Metric, metric_named
from nas.settings.document import Section, shown
from nas.settings.own import is_own

SAMPLERS = ("predictor", "nsga2", "nsga3", "tpe", "gp", "evolution", "random")
MEASURED = (
    "top1", "balanced_top1", "macs", "params",
    "latency_ms", "latency_ms_2", "latency_ms_3", "latency_ms_4", "agreement",
)  # fmt: skip


def _one_of(value: Any, info: ValidationInfo, *, known: Sequence[str]) -> Any:
    """The value, where it is known or an object of a Python program; else what pydantic says of a literal."""
    if is_own(value) or (isinstance(value, str) and value in (*known, *info.data.get("own_metrics", ()))):
        return value
    *others, last = (f"'{name}'" for name in known)
    raise PydanticKnownError("literal_error", {"expected": f"{', '.join(others)} or {last}"})


class OwnMetricSection(Section):
    """What is kept of a metric of a Python program."""

    unit: str
    direction: Direction
    of: Literal["logits", "features", "network"]
    worst: float | None = None
    best: float | None = None
    bound: float | None = None


class SearchConfig(Section):
    """How the front is searched."""

    own_metrics: dict[str, OwnMetricSection] = Field(
        {}, description="what a Python program measures besides (`nas.OwnMetric`); its functions are not kept"
    )
    objectives: tuple[Annotated[str, BeforeValidator(partial(_one_of, known=MEASURED))], ...] = Field(
        ("top1", "macs", "latency_ms"),
        min_length=1,
        description="metrics to optimise; `balanced_top1` is the mean over classes, for imbalanced images; "
        "`latency_ms` is on the first target, `latency_ms_2` on the second; `agreement` with the whole "
        "network needs no labels",
    )

    sampler: Annotated[str, BeforeValidator(partial(_one_of, known=SAMPLERS))] = Field(
        "predictor", description="what proposes architectures"
    )
    population_size: int = Field(
        24,
        ge=4,
        le=1_000_000,
        description="of NSGA-II, NSGA-III and evolution; and the designs that a search starts from",
    )

    seed_runs: tuple[str, ...] = Field(
        (), description="folders of earlier runs; the search starts from those of their fronts that it can have"
    )

    @property
    def own_bounds(self) -> dict[str, float]:
        """Bounds on metrics of a Python program, as `Measurement.keeps` reads them."""
        return {
            name if metric.direction == "minimize" else f"{name}{AT_LEAST}": metric.bound
            for name, metric in self.own_metrics.items()
            if metric.bound is not None
        }

    def metric(self, name: str) -> Metric:
        """A metric of the run: one of ours, or of a Python program."""
        if (found := self.own_metrics.get(name)) is None:
            return metric_named(name)
        return Metric(name, found.unit, found.direction, name, found.best)

    @model_validator(mode="before")
    @classmethod
    def _keeps_agreement_as_if_of_a_program(cls, value: Any) -> Any:
        if not isinstance(value, Mapping) or AGREEMENT.name not in (value.get("objectives") or ()):
            return value
        kept = {"unit": AGREEMENT.unit, "direction": AGREEMENT.direction, "of": "features"}
        return {**value, "own_metrics": {**(value.get("own_metrics") or {}), AGREEMENT.name: kept}}

    @field_validator("objectives")
    @classmethod
    def _are_distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"names a metric twice: {shown(value)}")
        return value
