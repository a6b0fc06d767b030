"""The stages of a run: train the supernet, search, measure the front. Each can be resumed."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType
from typing import Any

from threadpoolctl import threadpool_limits

from nas.arch import Architecture
from nas.base import BALANCED, NoResultError, duration, plural
from nas.cluster import Arrays, RayAhead, check_sendable
from nas.data import ImageSet
from nas.evaluation import EvaluatorSetup, build_evaluator, check_latency_bounds, evaluator_arrays
from nas.initial import start_note, warm_start
from nas.jobs.measures import evaluator_setup, search_identity
from nas.jobs.session import LEAST_THREADED_MACS, Budget, Session
from nas.latency import measure_front, tighten_latency_bounds, torch_threads
from nas.model import Subnet, Supernet
from nas.report import front_csv, write_report
from nas.runs import (
    ParetoFront,
    RunDirectory,
    SearchBudget,
    SearchIdentity,
    all_trials,
    course_of,
    objectives_by,
    plain_vits,
    results_of,
)
from nas.settings import RunConfig
from nas.study import (
    ArchitectureStudy,
    InlineWorkers,
    Progress,
    RayWorkers,
    ReusedMeasurement,
    Search,
    Workers,
    early_actor,
    known_measurements,
    window_of,
)
from nas.training import (
    Schedule,
    SupernetTrainer,
    TrainerSetup,
    TrainProgress,
    forget_processes,
    possible_processes,
    train_distributed,
    weights_digest,
)

LastChoice = Callable[[Session, Budget], ParetoFront | None]  # makes the front; of a finished run where it `chooses`
AHEAD_S = 15.0  # before a training ends, Ray and its processes start; they take some ten seconds
UNSURE = 0.01  # share of a hypervolume: two measurings of quiet networks differ by less


def run(session: Session, budget: Budget, last: LastChoice = lambda *_: None, *, chooses: bool = False) -> ParetoFront:
    """Everything: train, search, measure, or `last` instead; what an earlier process did is not done again.

    Raises:
        NasError: A stage failed; see there.
        KeyboardInterrupt: Ctrl-C; the same call resumes.
    """
    with session.run.lock(), closing(RayAhead(_early(session, budget), budget.ray_address, early_actor)) as ahead:
        stage, searches = session.run.manifest.stage, trials_left(session.run, budget)
        if stage == "finished" and not searches and not chooses:
            session.reporter.line("run", "finished already; --trials above the present number extends it")
            return ParetoFront.from_run(session.run.path)
        supernet = train(session, budget.train_workers, budget.ray_address, ahead)
        if searches or stage not in ("finalists", "finished"):
            search(session, supernet, budget, ahead)
        return last(session, budget) or measure(session, supernet)


def trials_left(run: RunDirectory, budget: Budget) -> bool:
    """Whether a budget extends a search that has ended."""
    paid = sum(trial.is_paid for trial in run.trials())
    return budget.minutes is not None or (budget.trials or 0) > paid


def _early(session: Session, budget: Budget) -> int:
    """How many workers can start before the supernet is trained: on a GPU they would take its memory."""
    return budget.workers if session.device.type == "cpu" else 0


def train(
    session: Session, workers: int = 0, ray_address: str | None = None, ahead: RayAhead | None = None
) -> Supernet:
    """Train the supernet, or go on with it, or load it where it is trained.

    So many workers train together, on the cluster at the address or in a Ray of their own; fewer than 2: this process
    alone. The weights are the same but for rounding. Before a training in one process ends, a Ray is started ahead.

    Raises:
        NoResultError: The smallest networks of the space break a bound on latency.
        TrainingError: The loss is not finite, even with a lower learning rate.
        CheckpointError: Checkpoints are damaged or belong to something else.
        RunError: The processes of the training cannot be started, or are gone.
    """
    if session.run.manifest.search is None and session.space.constraints.max_latency:
        with torch_threads(1):
            check_latency_bounds(evaluator_setup(session))
    setup, trainer = trainer_setup(session), supernet_trainer(session)
    processes = _train_processes(session, workers, ray_address)
    trainer.schedule.check_batch(processes)
    session.run.update_manifest(stage="training")
    last: TrainProgress | None = None
    with torch_threads(session.threads), session.reporter.bar("supernet") as bar:

        def show(progress: TrainProgress) -> None:
            nonlocal last
            last = progress
            if progress.warning:
                session.reporter.line("warning", progress.warning)
                session.run.log(f"training: {progress.warning}")
            largest, smallest, random = progress.losses
            bar(
                progress.step,
                progress.steps,
                f"left {duration(progress.eta_s)}  epoch {progress.epoch:.1f}/{progress.epochs}  "
                f"loss largest {largest:.2f}  loss smallest {smallest:.2f}  loss random {random:.2f}  "
                f"gap {progress.gap:+.2f}  "
                f"{progress.images_per_second:.0f} images/s",
            )
            for callback in session.callbacks:
                callback.on_train(session.run, progress)
            if ahead is not None and processes == 1 and progress.eta_s < AHEAD_S:  # between steps: each seeds itself
                ahead.start(evaluator_arrays(trainer.supernet, session.data.search))

        if processes > 1:
            trained = train_distributed(trainer, setup, processes, ray_address, show)
        else:
            forget_processes(trainer.directory)
            trained = trainer.run(show)
    if last is not None:
        session.run.log(f"supernet trained to step {last.step}, {last.images_per_second:.0f} images/s")
        say_dead_operators(session)
    session.run.update_manifest(supernet_digest=trainer.digest())
    return trained


def say_dead_operators(session: Session) -> None:
    """Warn of every operator that did nothing in the training of the session's supernet; the run's log says it too."""
    course = course_of(session.run)
    for line in [] if course is None else course.dead:
        session.reporter.line("warning", line)
        session.run.log(f"training: {line}")


def _train_processes(session: Session, workers: int, ray_address: str | None) -> int:
    if workers < 2:
        return 1
    if session.space.macs_range()[1] < LEAST_THREADED_MACS:
        session.reporter.line("training", "in one process: networks as small as these are slower in several")
        return 1
    processes = possible_processes(workers, session.device, ray_address)
    session.reporter.line("training", f"in {processes} process{'es' if processes > 1 else ''}")
    return processes


def trainer_setup(session: Session) -> TrainerSetup:
    """What makes the trainer of a run, in this process and in others."""
    return TrainerSetup(
        space=session.space,
        config=session.located,
        precision=session.precision,
        directory=session.run.supernet_dir.absolute(),
    )


def supernet_trainer(session: Session) -> SupernetTrainer:
    """The trainer of a run, at its beginning; `resume` loads its newest checkpoint."""
    config, images = session.config, session.data.train

    def start(fresh: Supernet) -> None:
        schedule = Schedule(config.train, len(images))
        if (epochs := schedule.paying_epochs) and session.run.manifest.started_from is None:
            text = f"{plural(schedule.steps, 'step')} from a trained start may lose more than they give"
            session.reporter.line("warning", f"{text}; --epochs {epochs} paid elsewhere, --epochs 0 keeps it as it is")
        random = warm_start(fresh, session.located.init, images, ordered=config.init_ordered, device=session.device)
        session.reporter.line("init", f"{config.init}: {len(random)} weights of the operators start at random")
        if note := start_note(session.located.init, session.space.backbone):
            session.reporter.line("init", note)

    return trainer_setup(session).trainer(images, session.device, start=start if config.init else None)


def training_schedule(config: RunConfig, images: ImageSet) -> Schedule:
    """How long a training is that can begin; a TrainingError: a batch is too small."""
    schedule = Schedule(config.train, len(images))
    schedule.check_batch()
    return schedule


def search(session: Session, supernet: Supernet, budget: Budget, ahead: RayAhead | None = None) -> None:
    """Measure architectures until the budget is spent; after a KeyboardInterrupt, what is finished is kept."""
    begin_search(session, supernet, budget)
    search_into(session.run, session, supernet, budget, session.config.seed, ahead=ahead)


def search_into(
    run: RunDirectory,
    session: Session,
    supernet: Supernet,
    budget: Budget,
    seed: int,
    known: Mapping[str, ReusedMeasurement] | None = None,
    *,
    ahead: RayAhead | None = None,
) -> None:
    """Search into a folder with a seed, or go on there; what is known already counts as trials.

    None: what the runs beside it measured is known, and counts as nothing.
    """
    config = session.config
    session.own.require(config.own_names)
    identity = search_identity(session, supernet)
    objectives = identity.objectives
    setup = evaluator_setup(session, weights_digest(session.run), identity.reference_clocks)
    arrays = evaluator_arrays(supernet, session.data.search)
    study = ArchitectureStudy(
        session.space,
        objectives,
        config.search.sampler,
        config.search.population_size,
        seed,
        budget.storage or run.journal_path,
        seeds=_seeds(session),
        window=window_of(budget.workers),
        name=(run.manifest.study or run.name) if budget.storage else "architectures",
        own_sampler=session.own.sampler,
        own_bounds=config.search.own_bounds,
        run=f"created {datetime.fromtimestamp(run.manifest.created, UTC).isoformat()}",
    )
    with closing(study), closing(_start_workers(session, budget, setup, arrays, ahead)) as workers:
        if not (counts_known := known is not None):
            conditions = setup.conditions(len(arrays["labels"]), stage="search")
            wanted = {*config.search.objectives, *setup.latencies}
            # Of a metric of a Python program a run knows the name alone: another's may be another function.
            known = {} if setup.metrics else known_measurements(run, conditions, wanted)
        if known:
            session.reporter.line("known", f"{plural(len(known), 'architecture')} measured by other runs")
        if config.evaluate.racing and BALANCED.name in config.search.objectives:
            session.reporter.line("racing", "off: balanced accuracy needs all images of every class")
        elif config.evaluate.racing and setup.metrics:
            whose = "metrics of a Python program need" if session.own.metrics else "agreement needs"
            session.reporter.line("racing", f"off: {whose} all images")
        loop = Search(
            session.space,
            objectives,
            study,
            workers,
            run,
            racing=config.evaluate.racing and not setup.metrics,
            known=known,
            counts_known=counts_known,
            own_bounds=config.search.own_bounds,
        )
        # For a predictor's matrices a second thread of OpenBLAS mostly waits, at the expense of the workers.
        with torch_threads(1), threadpool_limits(1, "blas"), session.reporter.bar("search") as bar:

            def show(progress: Progress) -> None:
                bar(progress.paid, progress.total, progress.text)
                for callback in session.callbacks:
                    callback.on_trial(run, progress)

            trials = loop.run(trials=budget.trials, minutes=budget.minutes, on_progress=show)
    run.write_trials_csv()
    run.log(f"search ended ({loop.outcome}) with {plural(len(trials), 'trial')}")
    session.reporter.line("search", f"ended: {loop.outcome}")


def _start_workers(
    session: Session, budget: Budget, setup: EvaluatorSetup, arrays: Arrays, ahead: RayAhead | None
) -> Workers:
    build = partial(build_evaluator, setup)
    if budget.workers == 0:
        return InlineWorkers(build(arrays))
    if session.config.own_names:
        check_sendable(setup, "a metric or target of this program", "workers=0 measures in this process")
    gpus = 1 / budget.workers if session.device.type == "cuda" else 0
    timeout_s = session.config.evaluate.timeout_s
    started = None if ahead is None else ahead.take()
    workers = RayWorkers(build, arrays, budget.workers, budget.ray_address, timeout_s, num_gpus=gpus, started=started)
    session.reporter.line("workers", f"{workers.num_workers} Ray actors, one thread each")
    return workers


def _seeds(session: Session) -> list[Architecture]:
    """The architectures on the fronts of earlier runs that are in the space."""
    found: list[Architecture] = []
    for path, place in zip(session.config.search.seed_runs, session.located.search.seed_runs, strict=True):
        front = ParetoFront.from_run(place).points
        fitting = [point.architecture for point in front if point.architecture in session.space]
        session.reporter.line("seeds", f"{len(fitting)} of {len(front)} on the front of {path}")
        found += fitting
    return found


def measure(session: Session, supernet: Supernet) -> ParetoFront:
    """Measure the latency of the front of the trials again, and write the answer; see `measure_points`."""
    run = session.run
    found = ParetoFront.from_trials(all_trials(run), search_identity(session, supernet).objectives)
    front = measure_points(session, supernet, found, [supernet.extract(p.architecture) for p in found.points])
    if len(front.points) < len(found.points):
        why = "measured again with nothing beside them, the others are dominated, or break a bound"
        session.reporter.line("front", f"{len(front.points)} of the {len(found.points)} that the search found: {why}")
    before, now = found.hypervolume(), front.hypervolume()
    if abs(now - before) > UNSURE * before:
        why = "its ratios to the reference are of fewer rounds beside other work"
        session.reporter.line("front", f"hypervolume {now:.3f}, by the latencies of the search {before:.3f}: {why}")
    return front


def measure_points(
    session: Session,
    supernet: Supernet,
    found: ParetoFront,
    subnets: Sequence[Subnet],
    about: Mapping[str, Any] = MappingProxyType({}),
) -> ParetoFront:
    """Measure latency alone on the machine and interleaved, and write the front of what is found.

    The supernet's largest subnet is the reference; its weights do not matter. The subnets are those of the candidates.
    `about` are further keys of `front.json`.

    Raises:
        NoResultError: There is no candidate, or none keeps the bound on latency.
    """
    run = session.run
    run.update_manifest(stage="measuring")
    if not found.points:
        raise NoResultError(f"{run.path}: no trial was completed", hint=f"see the errors in {run.path}/trials.csv")
    identity = search_identity(session, supernet)
    setup = evaluator_setup(session, weights_digest(run), identity.reference_clocks)
    with torch_threads(1):
        points, targets = measure_front(
            {name: setup.meter(supernet, target) for name, target in setup.targets.items()},
            found.points,
            subnets,
            session.reporter,
            searched=setup.latencies,
            rounds=setup.config.final_rounds,
            conditions=setup.conditions(1, stage="exclusive"),
        )
    bounds = dict(run.manifest.constraints)
    bounds |= tighten_latency_bounds({n: b for n, b in bounds.items() if n in targets}, targets, session.reporter)
    objectives = objectives_by(identity.objectives, {name: row["reference_ms"] for name, row in targets.items()})
    front = ParetoFront(objectives, ParetoFront.from_points(points, objectives, bounds).points, targets)
    if not front.points:
        names = " and ".join(
            f"constraints.max_{name}" if name in targets else f"the bound on {name}" for name in bounds
        )
        raise NoResultError(
            f"{run.path}: none of {len(points)} candidates keeps {names} when measured again",
            hint="raise the bound, or search longer",
        )
    plain = plain_vits(results_of(run, front)).to_dict()
    run.write_front({**front.to_dict(run.name), "plain": plain, **about})
    run.write_front_csv(front_csv(front, run.path))
    for callback in session.callbacks:
        callback.on_front(run, front)
    session.reporter.line("report", str(write_report(run)[0]))
    run.update_manifest(stage="finished")
    run.log(f"front of {len(front.points)} architectures, hypervolume {front.hypervolume():.4f}")
    return front


def begin_search(session: Session, supernet: Supernet, budget: Budget) -> SearchIdentity:
    """Fix what a search is measured by, where that is not fixed yet, and withdraw an earlier answer.

    Raises:
        ConfigError: An object of a Python program that the configuration names is not there.
    """
    session.own.require(session.config.own_names)
    identity = search_identity(session, supernet)
    deadline = None if budget.minutes is None else time.time() + 60 * budget.minutes
    session.run.update_manifest(
        stage="searching", search=identity, budget=SearchBudget(num_trials=budget.trials, deadline=deadline)
    )
    session.run.remove_front()
    return identity
