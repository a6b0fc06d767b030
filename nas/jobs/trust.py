"""`trust RUN`: the stand-alone trainings that are left, their records, and what they say of the supernet."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nas.arch import Architecture
from nas.base import BALANCED, TOP1, ConfigError, Reporter, accuracy_of
from nas.data import ImageSet
from nas.evaluation import EvaluatorSetup, SubnetEvaluator
from nas.jobs.alone_records import RECORD_VERSION, stand_alone_setup, trained_alone
from nas.jobs.measures import evaluator_setup
from nas.jobs.session import reopen
from nas.latency import torch_threads
from nas.model import Supernet
from nas.report import trust_figure
from nas.runs import LEAST_ARCHITECTURES, architecture_row, check_counts, rank_statistics
from nas.settings import NO_OWN, Own
from nas.space import SearchSpace, sample_near
from nas.training import load_trained, weights_digest

NOTED = ("supernet", "split", "num_images", "precision", "device", "torch")  # of the conditions
TOGETHER = 32  # architectures that are evaluated in one pass, between two looks at the bar
TRIES = 20  # draws for every architecture wanted, where a small space repeats itself


def choose(space: SearchSpace, count: int, seed: int) -> list[Architecture]:
    """Different architectures, spread evenly over the range of MACs, or all that were found of a smaller space.

    The wanted MACs are a van der Corput sequence, rotated by the seed: of the first 2**n, one lies in each of
    2**n equal parts of the range, and a longer sequence goes on with a shorter one.

    Raises:
        ConfigError: The space has fewer than four.
    """
    from scipy.stats.qmc import Halton  # type: ignore[import-untyped]

    low, high = space.macs_range()
    offset = np.random.default_rng([seed, 0]).random()
    positions = (Halton(1, scramble=False).random(TRIES * count)[:, 0] + offset) % 1
    chosen: dict[str, Architecture] = {}
    for i, position in enumerate(positions):
        drawn = sample_near(space, low + position * (high - low), np.random.default_rng([seed, 1, i]))
        chosen.setdefault(drawn.digest, drawn)
        if len(chosen) == min(count, space.size()):
            break
    if len(chosen) < LEAST_ARCHITECTURES:
        raise ConfigError(f"{space.name}: only {len(chosen)} architectures, too few to rank")
    return list(chosen.values())


def trust(
    path: Path,
    reporter: Reporter,
    *,
    architectures: int,
    seeds: int,
    epochs: int | None,
    workers: int,
    data: str | None = None,
    own: Own = NO_OWN,
) -> dict[str, Any]:
    """How well a run's supernet ranks: inherited against stand-alone top-1. Writes `trust.json` and its figure.

    Every finished training is a record in the run's folder and is never done again, whatever is asked next.
    The architectures are MACs-stratified, and a larger number goes on with those of a smaller one. Each is trained with
    so many seeds, for as many epochs as the supernet where `epochs` is None; 0 workers: all in this process. `data`
    says where the images are now, `own` has a program's data set (`nas.jobs.session.reopen`).

    Returns:
        What `trust.json` holds: JSON values, explained in results/README.md.

    Raises:
        RunError: The supernet is not trained, or another process writes into the run.
        NoResultError: Fewer than four architectures were trained to their end.
        KeyboardInterrupt: Ctrl-C; the same command goes on.
    """
    check_counts(architectures, seeds)
    session = reopen(path, reporter, data, own)
    with session.run.lock():
        supernet = load_trained(session.run, session.space, session.device)
        setup = stand_alone_setup(session, epochs, session.run.trust_dir)
        chosen = choose(session.space, architectures, session.config.seed)
        if len(chosen) < architectures:
            reporter.line("space", f"{session.space.name} has no more than {len(chosen)} architectures")
        evaluation = evaluator_setup(session, weights_digest(session.run))
        inherited = inherited_accuracy(evaluation, supernet, session.data.search, chosen, reporter)
        records = trained_alone(setup, seeds, chosen, session.data, workers, reporter)
        failed = [record for record in records if record["error"] is not None]
        rows, by = [], accuracy_of(session.config.search.objectives)
        for architecture in chosen:
            alone: list[Any] = [record.get(by.name) for record in records if record["digest"] == architecture.digest]
            if None not in alone:  # none of its trainings failed
                with_supernet = inherited[architecture.digest][by.name]
                rows.append(architecture_row(architecture, session.space, with_supernet, alone))
        conditions = evaluation.conditions(len(session.data.search), stage="search")
        found = {
            "run": session.run.name,
            "num_architectures": len(rows),
            "num_seeds": seeds,
            "epochs": setup.config.train.epochs,
            "recipe": setup.recipe,
            **({} if by is TOP1 else {"accuracy": by.label}),
            **{name: getattr(conditions, name) for name in NOTED},
            **rank_statistics(rows, session.config.seed),
            "failed": [{key: record[key] for key in ("digest", "seed", "error")} for record in failed],
            "architectures": rows,
        }
        session.run.write_trust(found)
        trust_figure(found, session.run.figure_path("trust"))
    for record in failed:
        reporter.line("failed", f"{record['digest']}, seed {record['seed']}: {record['error']}")
    return {"schema_version": RECORD_VERSION, **found}


def inherited_accuracy(
    setup: EvaluatorSetup,
    supernet: Supernet,
    images: ImageSet,
    architectures: Sequence[Architecture],
    reporter: Reporter,
) -> dict[str, dict[str, float]]:
    """Accuracies in percent with the supernet's weights, measured as in the search, by digest and metric."""
    evaluator = SubnetEvaluator(setup, supernet, images)
    found: dict[str, dict[str, float]] = {}
    with torch_threads(1), reporter.bar("inherited") as bar:
        for start in range(0, len(architectures), TOGETHER):
            chosen = architectures[start : start + TOGETHER]
            outcomes = evaluator.evaluate_many([(architecture, None) for architecture in chosen])
            for architecture, outcome in zip(chosen, outcomes, strict=True):
                if isinstance(outcome, Exception):
                    raise outcome
                values = outcome.values
                found[architecture.digest] = {m.name: values[m.name] for m in (TOP1, BALANCED) if m.name in values}
            bar(len(found), len(architectures), f"{len(found)}/{len(architectures)} architectures")
    return found
