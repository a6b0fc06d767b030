"""One supernet trial, in a process of its own: its folder, its training, its score at each rung."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nas.arch import Architecture, cost
from nas.base import BALANCED, MACS, TOP1, DiskError, Metric, Objective, Reporter, RunError, accuracy_of, disk_error
from nas.cluster import reason_of
from nas.data import ImageSet
from nas.evaluation import EvaluatorSetup, balanced_percent, top1_percent
from nas.jobs.measures import evaluator_setup
from nas.jobs.session import Session, reopen
from nas.jobs.stages import supernet_trainer
from nas.latency import torch_threads
from nas.model import Supernet
from nas.runs import (
    MANIFEST,
    REFERENCE_MARGIN,
    Manifest,
    RunDirectory,
    SupernetTrial,
    config_of_run,
    group_settings,
    hypervolume,
    space_of_run,
    space_settings,
    supernet_trial,
    trial_key,
)
from nas.settings import TRAIN, TrainConfig, TuneConfig
from nas.space import SearchSpace, parse_space, sample_near
from nas.training import TrainProgress

OF_THE_DATA = {
    "command", "space_file", "seed", "versions", "threads", "constraints", "mean", "std", "class_names",
    "largest_class", "splits", "precision", "device",
}  # fmt: skip
"""What the manifest of a trial has from its parent's."""


def train_trial(parent: Path, epochs: int, number: int, parameters: Mapping[str, Any], until: int) -> SupernetTrial:
    """Train a supernet as far as asked, or answer from its folder where it has come as far or ended.

    It belongs to the run in `parent`, where a whole training has so many epochs; `until` is one of the rungs, and the
    parameters go by dotted key. The trial that is returned, as in its folder, has scores, those of earlier processes
    among them, or the reason why it failed.
    """
    whole = RunDirectory.open(parent)
    run = _folder(whole, epochs, number, parameters)
    with run.lock(patience_s=-1):  # a trial proposed twice, or a process that is dying, ends soon
        trial = supernet_trial(run)
        if trial.state == "training":
            try:
                _train(reopen(run.path, Reporter(quiet=True)), trial, whole, until)
            except Exception as error:  # whatever the parameters lead to is this trial's result
                if full := disk_error(error):
                    raise full from error
                failed = replace(supernet_trial(run), state="failed", error=reason_of(error))
                run.update_manifest(supernet_trial=failed)
        return supernet_trial(run)


def _folder(parent: RunDirectory, epochs: int, number: int, parameters: Mapping[str, Any]) -> RunDirectory:
    """The folder of a trial; made where there is none."""
    path = parent.supernets_dir / trial_key(parameters)
    if path.exists():
        return RunDirectory.open(path)
    manifest = parent.manifest
    settings = [*manifest.space_settings, *space_settings(parameters)]
    space = parse_space(parent.space_text(), str(path), settings).with_num_classes(len(manifest.class_names))
    whole = config_of_run(parent)
    train = {**whole.train.model_dump(mode="json"), **group_settings(parameters, TRAIN), "epochs": epochs}
    config = whole.model_copy(
        update={"train": TrainConfig.model_validate(train), "tune": TuneConfig(), "precision": manifest.precision}
    )
    try:
        return RunDirectory.create(
            path,
            manifest=Manifest(
                **manifest.model_dump(include=OF_THE_DATA),
                space_settings=tuple(settings),
                space_digest=space.digest,
                study=f"{parent.name}/{path.name}",
                supernet_trial=SupernetTrial(number=number, parameters=parameters),
            ),
            space_text=parent.space_text(),
            config=config.model_dump(mode="json"),
        )
    except (DiskError, RunError):
        if not (path / MANIFEST).exists():
            raise
        return RunDirectory.open(path)  # the same parameters were proposed twice at a time


def _train(session: Session, trial: SupernetTrial, parent: RunDirectory, until: int) -> None:
    run, tune, whole = session.run, config_of_run(parent).tune, space_of_run(parent)
    most_macs = REFERENCE_MARGIN * cost.macs(whole.largest(), whole.backbone)
    run.update_manifest(stage="training")
    trainer = supernet_trainer(session)
    by = accuracy_of(session.config.search.objectives)
    probes = probe_set(session.space, tune.probes, session.config.seed)

    def show(progress: TrainProgress) -> None:
        if progress.warning:
            run.log(f"training: {progress.warning}")

    with torch_threads(session.threads):
        for epoch in tune.rungs(trainer.schedule.epochs):
            if epoch in trial.scores or epoch > until:
                continue
            supernet = trainer.run(show, until=epoch * trainer.schedule.steps_per_epoch)
            score = score_of(evaluator_setup(session), supernet, session.data.search, probes, most_macs, by)
            trial = replace(trial, scores={**trial.scores, epoch: score})
            if epoch < trainer.schedule.epochs:
                run.update_manifest(supernet_trial=trial)
            else:
                complete = replace(trial, state="complete")
                run.update_manifest(supernet_trial=complete, supernet_digest=trainer.digest())


def probe_set(space: SearchSpace, count: int, seed: int) -> list[Architecture]:
    """Architectures evenly over the MACs range of a space, the smallest and the largest among them."""
    rng = np.random.default_rng([seed, count])
    targets = np.linspace(*space.macs_range(), count)[1:-1]
    between = [sample_near(space, float(macs), rng) for macs in targets]
    return list(dict.fromkeys([space.smallest(), *between, space.largest()]))


def score_of(
    setup: EvaluatorSetup,
    supernet: Supernet,
    images: ImageSet,
    probes: Sequence[Architecture],
    most_macs: float,
    by: Metric = TOP1,
) -> float:
    """How good a supernet is: hypervolume of accuracy on the search split over MACs of some of its subnets.

    Top-1, or balanced accuracy, as `by` says. It is a share of the box up to `most_macs`, the same for all supernets.
    """
    ranked, backbone = setup.ranked(images), setup.space.backbone
    rows = []
    for probe in probes:
        correct = setup.count_correct(supernet.extract(probe), ranked)
        accuracy = balanced_percent(correct, ranked.labels) if by is BALANCED else top1_percent(correct)
        rows.append([accuracy, float(cost.macs(probe, backbone))])
    return hypervolume(rows, (Objective(TOP1, 0.0), Objective(MACS, most_macs)))
