"""One run, opened for work: its space, configuration, images and device, the same on every resume."""

import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from nas.base import (
    AGREEMENT,
    BALANCED,
    TOP1,
    ConfigError,
    DataError,
    NasError,
    Reporter,
    RunError,
    check_writable,
    command_line,
    hidden_words,
    plural,
)
from nas.cluster import check_cluster
from nas.data import UNLABELLED, ImageData, TestSplit, load_images, spec_at
from nas.evaluation import AGREES, check_metrics
from nas.initial import check_init
from nas.jobs.callbacks import Callback
from nas.jobs.opening.same_run import differences, found_spec, knowing_run, typed_folders
from nas.jobs.opening.splits import check_splits_of_start, split_as_its_start
from nas.latency import (
    check_own_targets,
    check_targets_here,
    device_name,
    keep_profiles,
    resolve_device,
    resolve_precision,
    with_kept_profiles,
)
from nas.runs import (
    MANIFEST,
    ImagePlace,
    Manifest,
    ParetoFront,
    RunDirectory,
    RunPlan,
    as_begun,
    config_of_run,
    doubts_of,
    latest_unfinished,
    next_path,
    space_of_run,
    typed_in,
    versions_here,
)
from nas.settings import NO_OWN, Own, OwnMetric, RunConfig, located, read_space_text
from nas.space import SearchSpace, check_memory, parse_space
from nas.study import check_own_sampler, check_storage
from nas.training import Teacher, check_policy

RESULTS = Path("results")
MOVED = "--data SPEC says where the same images are now"
LEAST_THREADED_MACS = 10_000_000  # per image, of the largest subnet


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What every stage needs.

    Attributes:
        space: With the number of classes of the data.
        data: What a search may see of the images.
        precision: `fp32` or `bf16`.
        folders: From which relative paths of the configuration start, best first.
        callbacks: Told how the run goes on.
        own: Objects of a Python program that the configuration names.
    """

    run: RunDirectory
    space: SearchSpace
    config: RunConfig
    folders: tuple[Path, ...]
    data: ImageData
    device: torch.device
    precision: str
    reporter: Reporter
    callbacks: tuple[Callback, ...] = ()
    own: Own = NO_OWN

    @property
    def located(self) -> RunConfig:
        """The configuration with paths that lead from anywhere: what is worked by, where `config` is what was asked."""
        return with_kept_profiles(knowing_run(self.run), located(self.config, self.folders))

    @property
    def metrics(self) -> tuple[OwnMetric, ...]:
        """What is measured of every architecture besides: by a Python program, and agreement where it is asked for."""
        return (*self.own.metrics, *[AGREES][: AGREEMENT.name in self.config.search.own_metrics])

    @property
    def threads(self) -> int:
        """Threads of the training."""
        return _train_threads(self.space)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How long and where; never decides what the results are.

    Attributes:
        trials: Architectures to measure over the life of the run; None: no limit.
        minutes: Minutes to search from now; None: no limit.
        workers: Ray actors; 0 measures in this process without Ray.
        train_workers: Processes that train together; fewer than 2: this one alone.
        ray_address: Of a running cluster; None: embedded.
        storage: Database URL for the study; None: the journal in the run folder.
        supernet_trials: Supernets to train over the life of the run; 1: one, as the configuration says.
        finalists: Candidates to train on; 0: none; None: as many as usual, where that is worth it.
    """

    trials: int | None
    minutes: float | None = None
    workers: int = 0
    train_workers: int = 0
    ray_address: str | None = None
    storage: str | None = None
    supernet_trials: int = 1
    finalists: int | None = 0


def check_budget(budget: Budget) -> None:
    """Find out what would stop a search, before hours of training: a RunError: no such storage, or no such cluster."""
    if budget.ray_address or budget.workers or budget.train_workers > 1:
        check_cluster(budget.ray_address)
    if budget.storage:
        check_storage(budget.storage)


def start(
    asked: Path | SearchSpace,
    settings: tuple[str, ...],
    config: RunConfig,
    path: Path | None,
    reporter: Reporter,
    *,
    scratch: Path | None = None,
    plan: RunPlan | None = None,
    command: str | None = None,
    own: Own = NO_OWN,
) -> Session:
    """Create the run, or resume the one that is there; `asked` is its space, or the file or name of one.

    Settings change the space, as `constraints.max_macs=2e6` does. Without a path, the last unfinished run of this space
    and configuration is resumed, else a new one made. With `scratch`, all is checked, but a new run is created there.
    A run without a plan gets `plan`, and its epochs too if it is new. `command` is what starts it, as it is
    kept; None: the command line. `own` has the objects of a Python program that the configuration names.

    Raises:
        DiskError: There is no writing there.
        RunError: `path` holds another space, configuration or data; says where they differ.
        ConfigError: There are no weights and no epochs, or the device cannot be used.
        NasError: Space or data cannot be used.
    """
    if config.train.epochs == 0 and not config.init:
        raise ConfigError("train.epochs 0: there are no weights", hint="--init RUN, or --epochs N")
    if config.train.trainable != "all" and not config.init:
        text = f"train.trainable {config.train.trainable}: the matrices would stay random"
        raise ConfigError(text, hint="--init names a trained start, or leave train.trainable out")
    own.require(config.own_names)
    space_file = asked.name if isinstance(asked, SearchSpace) else asked
    text = asked.to_yaml() if isinstance(asked, SearchSpace) else read_space_text(asked)
    space = parse_space(text, str(space_file), settings)
    check_memory(space)
    if own.sampler is not None:
        check_own_sampler(own.sampler, space, [config.search.metric(name) for name in config.search.objectives])
    candidates = config.tune.parameters.get("train.auto_augment", ())
    for policy in (config.train.auto_augment, *(candidates if isinstance(candidates, tuple) else ())):
        check_policy(policy)
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device, space.macs_range()[1])
    before = RunDirectory.open(path) if path is not None and _is_taken(path) else None
    folders = (Path.cwd(), *(() if before is None else typed_folders(before)))
    here = located(config, folders)
    if before is not None:
        here = with_kept_profiles(knowing_run(before), here, only_missing=True)
    check_targets_here(here, space, reporter)
    if before is None:
        check_writable(path or RESULTS / space.name)
    config = split_as_its_start(config, before, Path(here.init))
    where = config.data
    if before is not None and spec_at(where.spec, Path.cwd()) is None and where.spec == config_of_run(before).data.spec:
        where = where.model_copy(update={"spec": found_spec(before, config)})
    data, _ = load_images(where, space.backbone.image_size, config.seed_of_splits, reporter, own.data)
    info, space = data.info, _fit_classes(space, data.info.num_classes, space_file)
    if info.class_names == (UNLABELLED,):
        _check_unlabelled(config)
    check_metrics(own.metrics, space, data.search)
    check_own_targets(own.targets, config.evaluate, space)
    identity = {"space_digest": space.digest, "splits": info.hashes}
    identity |= {"precision": precision, "device": device_name(device.type)}
    if path is None:
        unfinished = latest_unfinished(RESULTS, space.name)
        if unfinished and not differences(left := RunDirectory.open(unfinished), as_begun(config, left), identity):
            path = unfinished
    if path is not None and _is_taken(path):
        run, verb = RunDirectory.open(path), "resumed"
        config = as_begun(config, run)
        if found := differences(run, config, identity, space):
            raise RunError(
                f"{path} holds another run:\n" + "\n".join(f"  {line}" for line in found),
                hint="choose another --run DIR, or give the options it was started with",
            )
        if plan is not None and run.manifest.plan is None and scratch is None and not run.is_locked():
            run.update_manifest(plan=plan)
    else:
        config = config.with_epochs(plan.epochs) if plan and config.train.epochs is None else config
        source = check_init(space, here.init) if config.init else None
        if source is not None:
            check_splits_of_start(config, RunDirectory.open(Path(here.init)), info.hashes, reporter)
        if config.teacher:
            Teacher(here.teacher, info)
        for seeds in here.search.seed_runs:
            ParetoFront.from_run(seeds)
        path, verb = path or next_path(RESULTS, space.name), "new"
        _check_place(path)
        run = RunDirectory.create(
            scratch or path,
            manifest=Manifest(
                command=command or command_line(*hidden_words(sys.argv[1:])),
                space_file=str(space_file),
                space_settings=settings,
                seed=config.seed,
                versions=versions_here(),
                threads=_train_threads(space),
                images=ImagePlace(spec=config.data.spec, folders=typed_in(path)),
                folders=typed_in(path),
                started_from=source,
                constraints={**space.constraints.max_latency, **config.search.own_bounds},
                mean=info.mean,
                std=info.std,
                class_names=info.class_names,
                largest_class=data.search.majority,
                plan=plan,
                **identity,
            ),
            space_text=text,
            config=config.model_dump(mode="json"),
        )
        keep_profiles(run, here)
    session = Session(
        run=run,
        space=space,
        config=config,
        folders=folders,
        data=data,
        device=device,
        precision=precision,
        reporter=reporter,
        own=own,
    )
    _describe(session)
    advice = f"{verb}; the same command resumes it, Ctrl-C keeps what is finished"
    advice = advice if scratch is None else f"would be {verb}; nothing is written"
    reporter.line("run", f"{path} ({advice})")
    return session


def _check_place(path: Path) -> None:
    """Require that a new run does not lie within another one, and that its name can be printed."""
    outer = next((folder for folder in path.absolute().parents if (folder / MANIFEST).is_file()), None)
    if outer is not None:
        raise RunError(f"{path}: lies within the run {outer}", hint="choose another --run DIR")
    if not str(path).isprintable():
        raise RunError(f"{str(path)!r}: the name of a run must be printable text", hint="choose another --run DIR")


def reopen(path: Path, reporter: Reporter, data: str | None = None, own: Own = NO_OWN) -> Session:
    """Open a run as it was started.

    `data` is a data spec of the same images, where they are now; it is remembered. `own` has the objects
    of a Python program that the configuration names; what is missing is said where it is needed.

    Raises:
        RunError: It is no run, or the data or the machine is another than it was.
        DataError: The images cannot be read.
    """
    return reopen_with_test(path, reporter, data, own)[0]


def reopen_with_test(
    path: Path, reporter: Reporter, data: str | None = None, own: Own = NO_OWN
) -> tuple[Session, TestSplit | None]:
    """As `reopen`, with what opens the test split where there is one: for final numbers, never for a search (law 7).

    Raises:
        RunError: As `reopen`.
        DataError: As `reopen`.
    """
    run = RunDirectory.open(path)
    config, space = config_of_run(run), space_of_run(run)
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device, space.macs_range()[1])
    folders = typed_folders(run)
    check_targets_here(with_kept_profiles(knowing_run(run), located(config, folders)), space, reporter)
    where = config.data.model_copy(update={"spec": data or found_spec(run, config)})
    try:
        images, test = load_images(where, space.backbone.image_size, config.seed_of_splits, reporter, own.data)
    except DataError as error:
        raise DataError(f"the images of {path}: {error.message}", hint=f"{error.hint}; {MOVED}".lstrip("; ")) from error
    if space.num_classes_from_data:
        space = space.with_num_classes(images.info.num_classes)
    identity = {"space_digest": space.digest, "splits": images.info.hashes}
    if found := differences(run, None, identity, space):
        raise RunError(
            f"{path} was made from other data than {where.spec}:\n" + "\n".join(f"  {line}" for line in found),
            hint=f"restore the images it was started with; {MOVED}",
        )
    if data is not None and not run.is_locked():
        with suppress(NasError, OSError):  # of a folder that cannot be written into it is told again
            told = knowing_run(run)
            told.update_manifest(images=ImagePlace(spec=data, folders=typed_in(told.path)))
    session = Session(
        run=run,
        space=space,
        config=config,
        folders=folders,
        data=images,
        device=device,
        precision=precision,
        reporter=reporter,
        own=own,
    )
    for doubt in doubts_of(run):
        reporter.line("warning", doubt)
    return session, test


def _is_taken(path: Path) -> bool:
    """Whether something is there, but for an empty folder."""
    return path.exists() and (not path.is_dir() or any(path.iterdir()))


def _fit_classes(space: SearchSpace, num_classes: int, source: object) -> SearchSpace:
    if space.num_classes_from_data:
        return space.with_num_classes(num_classes)
    if space.backbone.num_classes != num_classes:
        raise ConfigError(
            f"{source}: backbone.num_classes is {space.backbone.num_classes}, the data has {num_classes} classes",
            hint="write `num_classes: auto`",
        )
    return space


def _check_unlabelled(config: RunConfig) -> None:
    """Raise a ConfigError where something is asked for that needs labels."""
    named = [name for name in config.search.objectives if name in (TOP1.name, BALANCED.name)]
    if named or config.train.epochs != 0 or not config.init:
        raise ConfigError(
            f"{config.data.spec}: images without labels can be searched by agreement with a trained start alone",
            hint='--init ... --epochs 0 --set "search.objectives=[agreement,macs]"',
        )


def _describe(session: Session) -> None:
    space, say = session.space, session.reporter.line
    for line in session.data.summary:
        label, _, text = line.partition("  ")
        say(label, text.strip())
    low, high = space.macs_range()
    macs = f"{low / 1e6:.3g} to {high / 1e6:.3g} MMACs per image"
    say("space", f"{space.name}: {space.size():.3g} architectures, {macs}")
    machine = f"{device_name(session.device.type)}, {session.precision}, {plural(session.threads, 'training thread')}"
    say("device", f"{machine}, torch {torch.__version__}")


def _train_threads(space: SearchSpace) -> int:
    """One for tiny networks, whose kernels are over before a second thread has woken up; else torch's default."""
    return 1 if space.macs_range()[1] < LEAST_THREADED_MACS else torch.get_num_threads()
