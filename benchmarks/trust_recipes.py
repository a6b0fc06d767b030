"""Which training recipe makes a supernet rank as training alone does, by one set of trainings alone.

    python search.py train SPACE.yaml --run RUN --data SPEC
    python search.py trust RUN
    python search.py train SPACE.yaml --run OTHER --data SPEC --set train.rule=single_path --set train.draw=uniform
    python benchmarks/trust_recipes.py RUN OTHER [--table trust_recipes]

The architectures that `trust` trained alone for RUN are measured with the weights of every run named, on RUN's search
split; intervals are of the same bootstrap as those of `trust`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from tables import write_table

from nas.arch import Architecture
from nas.base import Reporter
from nas.jobs import Session, evaluator_setup, inherited_accuracy, reopen
from nas.runs import BASELINES, TRUST, RunDirectory, architecture_row, config_of_run, rank_statistics
from nas.settings import flat_config
from nas.training import Schedule, load_trained, weights_digest


def recipe_of(run: RunDirectory, first: RunDirectory) -> str:
    """What differs from the first run's training, in words."""
    mine, theirs = (flat_config(config_of_run(each).train.model_dump()) for each in (run, first))
    changed = [f"{key}={value}" for key, value in mine.items() if value != theirs.get(key)]
    return " ".join(changed) or "of the first run"


def inherited(session: Session, asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of `trust` with the weights of a run."""
    architectures = [Architecture.from_dict(row["architecture"]) for row in asked]
    found = inherited_accuracy(
        evaluator_setup(session, weights_digest(session.run)),
        load_trained(session.run, session.space, session.device),
        session.data.search,
        architectures,
        Reporter(quiet=True),
    )
    return [
        architecture_row(a, session.space, found[a.digest]["top1"], row["stand_alone_top1_by_seed"])
        for a, row in zip(architectures, asked, strict=True)
    ]


def within(value: float | None, interval: list[float] | None) -> str:
    """A statistic and its interval."""
    return "" if value is None or interval is None else f"{value:.2f} ({interval[0]:.2f} to {interval[1]:.2f})"


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="the first one was asked by `trust`")
    parser.add_argument("--table", default="trust_recipes")
    given = parser.parse_args()
    torch.set_num_threads(1)
    first = RunDirectory.open(given.runs[0])
    trust: dict[str, Any] = json.loads((first.path / TRUST).read_text())
    rows: list[dict[str, Any]] = []
    sessions = [reopen(path, Reporter(quiet=True)) for path in given.runs]
    for session in sessions:
        if session.data.info.hashes["search"] != sessions[0].data.info.hashes["search"]:
            parser.error(f"{session.run.path}: its search split is another than that of {given.runs[0]}")
        of_run, run = inherited(session, trust["architectures"]), session.run
        found = rank_statistics(of_run)
        rows.append(
            {
                "recipe": recipe_of(run, first),
                "seed": run.config()["seed"],
                "epochs": Schedule(session.config.train, len(session.data.train)).epochs,
                "inherited_top1": round(sum(row["inherited_top1"] for row in of_run) / len(of_run), 2),
                "kendall_tau": within(found["kendall_tau"], found["kendall_tau_ci"]),
                "spearman_rho": within(found["spearman_rho"], found["spearman_rho_ci"]),
                **{
                    f"tau_above_{name}": within(row["tau_above_it"], row["tau_above_it_ci"])
                    for name, row in found["baselines"].items()
                },
            }
        )
    baselines = ", ".join(
        f"{words} {within(trust['baselines'][name]['kendall_tau'], trust['baselines'][name]['kendall_tau_ci'])}"
        for name, words in BASELINES.items()
    )
    ceiling = within(trust["seed_to_seed_tau"], trust["seed_to_seed_tau_ci"])
    write_table(
        given.table,
        rows,
        f"{sessions[0].space.name}: {trust['num_architectures']} architectures trained alone for "
        f"{trust['epochs']} epochs with {trust['num_seeds']} seeds; {trust['num_images']} images of the search split, "
        f"{trust['precision']}; 95 % intervals; tau of {baselines}" + (f"; of seeds {ceiling}" if ceiling else ""),
    )


if __name__ == "__main__":
    main()
