"""Does the supernet rank right? Which architectures are asked, and the rank correlations of the answers.

Inherited accuracy (weights of the supernet) is compared with stand-alone accuracy (the architecture trained
alone). Intervals are of a bootstrap over architectures: how much they would change with others of the space.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.arch import Architecture, cost
from nas.base import ConfigError, NoResultError, with_interval
from nas.space import SearchSpace

LEAST_ARCHITECTURES = 4  # with fewer, a rank correlation has hardly any values to take
RESAMPLES = 2000
CONFIDENCE = 0.95
BASELINES = {"macs": "MACs", "mean_tokens": "mean token count"}
_Values = NDArray[np.float64]


def check_counts(num_architectures: int, num_seeds: int) -> None:
    """Raise a ConfigError where there are too few architectures or seeds to compare anything."""
    if num_architectures < LEAST_ARCHITECTURES:
        text = f"--architectures {num_architectures}: a rank correlation needs at least {LEAST_ARCHITECTURES}"
        raise ConfigError(text, hint="24 give an interval of about +-0.2 around a tau of 0.6")
    if num_seeds < 1:
        text = f"--seeds {num_seeds}: every architecture is trained at least once"
        raise ConfigError(text, hint="2 or more show how far training noise alone changes the order")


def mean_tokens(architecture: Architecture) -> float:
    """Patch tokens of a layer, averaged over the layers."""
    return sum(layer.num_tokens for layer in architecture.layers) / architecture.depth


def architecture_row(
    architecture: Architecture, space: SearchSpace, inherited: float, stand_alone: Sequence[float]
) -> dict[str, Any]:
    """What is known of one architecture: JSON values; accuracies are percent of the search split."""
    return {
        "digest": architecture.digest,
        "macs": cost.macs(architecture, space.backbone),
        "mean_tokens": mean_tokens(architecture),
        "inherited_top1": inherited,
        "stand_alone_top1": sum(stand_alone) / len(stand_alone),
        "stand_alone_top1_by_seed": list(stand_alone),
        "architecture": architecture.to_dict(),
    }


def kendall_tau(one: _Values, other: _Values, counts: _Values) -> _Values:
    """Kendall's tau-b: 1 is the same order, -1 the reverse; NaN where all values of one are equal.

    Shapes: values of K architectures [K] each, `counts` of each in a sample [samples, K] -> [samples], as
    `scipy.stats.kendalltau` of each sample, in a thousandth of the time.
    """
    a, b = _signs(one), _signs(other)
    products, squares_a, squares_b = (((counts @ pairs) * counts).sum(axis=1) for pairs in (a * b, a * a, b * b))
    return _ratio(products, squares_a * squares_b)


def spearman_rho(one: _Values, other: _Values, counts: _Values) -> _Values:
    """Spearman's rho, the linear correlation of the ranks; see `kendall_tau`."""
    a, b = (counts @ _signs(one).T, counts @ _signs(other).T)  # twice the ranks within a sample, minus their mean
    products, squares_a, squares_b = ((counts * terms).sum(axis=1) for terms in (a * b, a * a, b * b))
    return _ratio(products, squares_a * squares_b)


def _signs(values: _Values) -> _Values:
    return np.sign(np.subtract.outer(values, values))


def _ratio(products: _Values, squares: _Values) -> _Values:
    return np.divide(products, np.sqrt(squares), out=np.full_like(products, np.nan), where=squares > 0)


def rank_statistics(rows: Sequence[Mapping[str, Any]], seed: int = 0) -> dict[str, Any]:
    """Rank correlations with stand-alone accuracy, the ceiling that seeds set, baselines, gap and verdict.

    Every statistic is taken of the same resamples, so that two can be compared: the interval of how far tau is
    above a baseline is of the difference in each resample.

    Args:
        rows: `architecture_row` of every architecture; of fewer than four a NoResultError is raised.
        seed: Of the resamples.

    Returns:
        JSON values. `null` where there is no order: all values are equal, or there is one seed only.
    """  # noqa: DOC501 - said of `rows`
    count = len(rows)
    if count < LEAST_ARCHITECTURES:
        text = f"{count} architectures were trained to their end, {LEAST_ARCHITECTURES} are needed"
        raise NoResultError(text, hint="trust/*.json in the run's folder say why the others failed")
    names = ("inherited_top1", "stand_alone_top1", *BASELINES)
    columns = {name: np.array([row[name] for row in rows], dtype=np.float64) for name in names}
    inherited, alone = columns["inherited_top1"], columns["stand_alone_top1"]
    by_seed = np.array([row["stand_alone_top1_by_seed"] for row in rows], dtype=np.float64).T
    drawn = np.random.default_rng([seed, 2]).multinomial(count, [1 / count] * count, size=RESAMPLES)
    counts = np.vstack([np.ones(count), drawn])  # all of them, and the resamples
    between = [kendall_tau(one, other, counts) for one, other in combinations(by_seed, 2)]
    tau = kendall_tau(inherited, alone, counts)
    found: dict[str, Any] = {
        **_summary("kendall_tau", tau),
        **_summary("spearman_rho", spearman_rho(inherited, alone, counts)),
        **_summary("seed_to_seed_tau", np.mean(between, axis=0) if between else None),
        **_summary("gap_points", counts @ (inherited - alone) / count),
        "baselines": {},
    }
    for name in BASELINES:
        of_baseline = kendall_tau(columns[name], alone, counts)
        found["baselines"][name] = {
            **_summary("kendall_tau", of_baseline),
            **_summary("spearman_rho", spearman_rho(columns[name], alone, counts)),
            **_summary("tau_above_it", tau - of_baseline),
        }
    return {**found, "verdict": verdict(found, count)}


def _summary(name: str, values: _Values | None) -> dict[str, Any]:
    """Value and interval of a statistic and its resamples; resamples without an order do not count."""
    if values is None or np.isnan(values[0]):
        return {name: None, f"{name}_ci": None}
    tail = 50 * (1 - CONFIDENCE)
    interval = np.nanpercentile(values[1:], [tail, 100 - tail])
    return {name: float(values[0]), f"{name}_ci": interval.tolist()}


def verdict(found: Mapping[str, Any], num_architectures: int) -> str:
    """One sentence: whether inherited accuracy ranks better than every baseline, as far as the intervals say."""
    if found["kendall_tau"] is None:
        return "no verdict: all architectures are equally accurate, inherited or alone"
    worse: list[str] = []
    better: list[str] = []
    unclear: list[str] = []
    for name, words in BASELINES.items():
        margin, interval = (found["baselines"][name][key] for key in ("tau_above_it", "tau_above_it_ci"))
        if margin is not None:
            judged = worse if interval[1] < 0 else better if interval[0] > 0 else unclear
            judged.append(f"{words} ({with_interval(margin, interval, '+.2f')})")
    if not worse + better + unclear:
        return "no baseline: the architectures differ neither in MACs nor in tokens"
    parts = [f"worse than {' and '.join(worse)}: do not trust it"] if worse else []
    parts += [f"better than {' and '.join(better)}"] if better else []
    if unclear:
        parts.append(
            f"perhaps no better than {' and '.join(unclear)}: with {num_architectures} architectures "
            "the interval of the difference in tau holds 0"
        )
    return f"inherited accuracy ranks {'; '.join(parts)}"
