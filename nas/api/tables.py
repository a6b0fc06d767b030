"""What a run measured as pandas DataFrames: a row a trial or a point of the front, a column a gene."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nas.arch import Architecture
from nas.base import LATENCIES, metric_named
from nas.report import front_rows
from nas.runs import RunResults, config_of_run, trial_row
from nas.space import SearchSpace

if TYPE_CHECKING:
    import pandas

FURTHER = {"flops": "FLOPs/image", "latency_ratio": "of the largest architecture's", "seconds": "s"}
"""Units of columns that are no metrics."""

LEFT_OUT = ("architecture", "export_command")


def gene_row(architecture: Architecture, space: SearchSpace) -> dict[str, Any]:
    """The genes that a space leaves open by name, such as `layers.03.attention`; None where one has no effect."""
    values, row = space.encode_unbounded(architecture), dict[str, Any]()
    for name, choices in space.choices().items():
        if len(choices) > 1:
            group, _, gene = name.rpartition(".")
            layer = int(group.partition(".")[2]) if group else -1
            is_there = layer < architecture.depth
            if is_there and group and gene in ("reducer", "hallucination"):
                is_there = getattr(architecture.layers[layer], gene) is not None
            row[name] = values[name] if is_there else None
    return row


def front_frame(found: RunResults) -> "pandas.DataFrame":
    """The front, a row a point by digest: the columns of `front.csv`, then the genes."""
    rows = front_rows(found.front, found.run.path)
    architectures = [point.architecture for point in found.front.points]
    return _frame(rows, architectures, found, "digest")


def trials_frame(found: RunResults) -> "pandas.DataFrame":
    """All trials by number: the columns of `trials.csv` that say something, then the genes; `supernet` of several."""
    trials = [(name, trial) for name, of_one in found.trials.items() for trial in of_one]
    rows = [{**trial_row(trial), **({"supernet": name} if name else {})} for name, trial in trials]
    return _frame(rows, [trial.architecture for _, trial in trials], found, "number")


def rows_frame(found: Mapping[str, Any], rows: str, index: str | None = None) -> "pandas.DataFrame":
    """The rows of a result, and all else of it in `attrs`."""
    import pandas

    frame = pandas.DataFrame(found[rows])
    frame.attrs = {key: value for key, value in found.items() if key != rows}
    return frame if index is None else frame.set_index(index)


def _frame(
    rows: Sequence[dict[str, Any]], architectures: Sequence[Architecture], found: RunResults, index: str
) -> "pandas.DataFrame":
    import pandas

    metrics = config_of_run(found.run).search.own_metrics
    own_units = {name: metric.unit for name, metric in metrics.items()}
    values = pandas.DataFrame(rows).drop(columns=[*LEFT_OUT], errors="ignore").dropna(axis="columns", how="all")
    genes = pandas.DataFrame([gene_row(architecture, found.space) for architecture in architectures])
    frame = pandas.concat([values, genes], axis="columns")
    known = {n: metric_named(n).unit for n in ("top1", "balanced_top1", "macs", "params", *LATENCIES)} | FURTHER
    known |= own_units
    units = {name: known.get(re.sub("_ci_(low|high)", "", name)) for name in frame.columns}
    frame.attrs["units"] = {name: unit for name, unit in units.items() if unit is not None}
    return frame.set_index(index)
