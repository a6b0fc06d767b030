"""One supernet trial, in a process of its own: its folder, its training, its score at each rung."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nas.arch import Architecture, cost
from nas.base import NasError, Reporter, RunError, one_line
from nas.evaluation import count_correct, top1_percent
from nas.jobs.session import Session, reopen, torch_threads
from nas.jobs.stages import REFERENCE_MARGIN, supernet_trainer
from nas.model import Supernet
from nas.runs import (
    Manifest,
    RunDirectory,
    SupernetTrial,
    hypervolume,
    space_of_run,
    space_settings,
    supernet_trial,
    train_settings,
    trial_key,
)
from nas.settings import MACS, TOP1, Objective, RunConfig, TrainConfig, TuneConfig
from nas.space import SearchSpace, parse_space, sample_near
from nas.training import TrainProgress

WAIT_S = 0.5  # between two looks whether another process has left a trial's folder
OF_THE_DATA = {
    "command", "space_file", "seed", "versions", "threads", "constraints", "mean", "std", "class_names",
    "splits", "precision", "device",
}  # fmt: skip
"""What the manifest of a trial has from its parent's."""

Report = Callable[[int, float], None]


def train_trial(
    parent: Path, epochs: int, number: int, parameters: Mapping[str, Any], report: Report
) -> str | None:
    """Train a supernet, go on with it, or answer from its folder where it has ended.

    Args:
        parent: Folder of the run that it belongs to.
        epochs: Passes over the training images.
        number: Order of proposal.
        parameters: What it is trained with, by dotted key.
        report: Told the score after each rung, also those of earlier processes; does not return where the trial
            is to be stopped.

    Returns:
        Why it failed, which is also in its folder; None where it did not.
    """
    run = _folder(RunDirectory.open(parent), epochs, number, parameters)
    with _locked(run):
        trial = supernet_trial(run)
        for epoch, score in sorted(trial.scores.items()):
            report(epoch, score)
        if trial.state != "training":
            return trial.error
        try:
            _train(reopen(run.path, Reporter(quiet=True)), trial, _tune_of(parent), report)
        except Exception as error:  # noqa: BLE001 - whatever the parameters lead to is this trial's result
            reason = one_line(
                error.message if isinstance(error, NasError) else f"{type(error).__name__}: {error}"
            )
            run.update_manifest(supernet_trial=replace(supernet_trial(run), state="failed", error=reason))
            return reason
    return None


def _tune_of(parent: Path) -> TuneConfig:
    return RunConfig.model_validate(RunDirectory.open(parent).config()).tune


def _folder(parent: RunDirectory, epochs: int, number: int, parameters: Mapping[str, Any]) -> RunDirectory:
    """The folder of a trial; made where there is none."""
    path = parent.supernets_dir / trial_key(parameters)
    if path.exists():
        return RunDirectory.open(path)
    manifest = parent.manifest
    settings = [*manifest.space_settings, *space_settings(parameters)]
    space = parse_space(parent.space_text(), str(path), settings).with_num_classes(len(manifest.class_names))
    whole = RunConfig.model_validate(parent.config())
    train = {**whole.train.model_dump(mode="json"), **train_settings(parameters), "epochs": epochs}
    config = whole.model_copy(
        update={
            "train": TrainConfig.model_validate(train),
            "tune": TuneConfig(),
            "precision": manifest.precision,
        }
    )
    trial = SupernetTrial(number=number, parameters=parameters)
    try:
        run = RunDirectory.create(
            path,
            manifest=Manifest(
                **manifest.model_dump(include=OF_THE_DATA),
                space_settings=tuple(settings),
                space_digest=space.digest,
                study=f"{parent.name}/{path.name}",
                supernet_trial=trial,
            ),
            space_text=parent.space_text(),
            config=config.model_dump(mode="json"),
        )
    except RunError:
        if not path.exists():
            raise
        run = RunDirectory.open(path)  # the same parameters were proposed twice at a time
    return run


@contextmanager
def _locked(run: RunDirectory) -> Iterator[None]:
    """Be the only writer, and wait for it: a trial proposed twice, or a process that is dying, ends soon."""
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(run.lock())
                break
            except RunError:
                time.sleep(WAIT_S)
        yield


def _train(session: Session, trial: SupernetTrial, tune: TuneConfig, report: Report) -> None:
    run, config = session.run, session.config
    run.update_manifest(stage="training")
    trainer = supernet_trainer(session)
    rungs = tune.rungs(trainer.epochs)
    whole = space_of_run(RunDirectory.open(run.path.parent.parent))
    probes = probe_set(session.space, tune.probes, config.seed)
    scores = dict(trial.scores)

    def reached(step: int) -> None:
        epoch, rest = divmod(step, trainer.steps_per_epoch)
        if rest or epoch not in rungs or epoch in scores:
            return
        scores[epoch] = score_of(session, trainer.trained(), probes, whole)
        if epoch < trainer.epochs:
            run.update_manifest(supernet_trial=replace(trial, scores=scores))
            trainer.save(step)  # after the score, which would otherwise be missing where a kill comes between
        else:
            ended = replace(trial, scores=scores, state="complete")
            run.update_manifest(supernet_trial=ended, supernet_digest=trainer.digest())
        report(epoch, scores[epoch])

    def show(progress: TrainProgress) -> None:
        if progress.warning:
            run.log(f"training: {progress.warning}")
        reached(progress.step)

    with torch_threads(session.threads):
        if done := trainer.resume():
            reached(done)
        trainer.run(show)


def probe_set(space: SearchSpace, count: int, seed: int) -> list[Architecture]:
    """Architectures evenly over the MACs range of a space, the smallest and the largest among them."""
    rng = np.random.default_rng([seed, count])
    targets = np.linspace(*space.macs_range(), count)[1:-1]
    between = [sample_near(space, float(macs), rng) for macs in targets]
    return list(dict.fromkeys([space.smallest(), *between, space.largest()]))


def score_of(session: Session, supernet: Supernet, probes: list[Architecture], whole: SearchSpace) -> float:
    """Hypervolume of top-1 on the search split over MACs, as a share of the box up to the whole space's largest.

    Raises:
        EvaluationError: A logit is not finite.
    """
    images, evaluate = session.data.search, session.config.evaluate
    images = images.part(0, evaluate.max_images or len(images))
    rows = []
    for probe in probes:
        correct = count_correct(
            supernet.extract(probe).to(session.device),
            images,
            batch_size=evaluate.batch_size,
            device=session.device,
            precision=session.precision,
        )
        rows.append([top1_percent(correct), float(cost.macs(probe, session.space.backbone))])
    most = REFERENCE_MARGIN * cost.macs(whole.largest(), whole.backbone)
    return hypervolume(rows, (Objective(TOP1, 0.0), Objective(MACS, most)))
