"""`nas.search`: everything that `nas run` does, as one call."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.api.arguments import hinted
from nas.api.run import Run
from nas.base import DEFAULT_TRIALS, MOST_MINUTES, NAME, ConfigError, Reporter, temporary_folder
from nas.runs import RunPlan, check_supernet_trials
from nas.settings import (
    Own,
    OwnMetric,
    OwnTarget,
    items_of,
    own_metrics,
    own_name,
    own_sampler,
    own_targets,
    path_of,
    resolve_config,
    split_settings,
    written_settings,
)
from nas.space import SearchSpace

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from nas.jobs import Callback, Session


@hinted
def search(
    space: "SearchSpace | str | Path" = "digits",
    *,
    data: Any = None,
    objectives: Sequence[str] | None = None,
    metrics: Sequence[OwnMetric] = (),
    sampler: "str | Callable[..., BaseSampler] | None" = None,
    callbacks: "Sequence[Callback]" = (),
    epochs: int | None = None,
    trials: int | None = None,
    minutes: float | None = None,
    finalists: int | None = None,
    supernet_trials: int = 1,
    workers: int = 0,
    ray_address: str | None = None,
    storage: str | None = None,
    targets: "Sequence[str | OwnTarget]" = (),
    init: str | None = None,
    teacher: str | None = None,
    seed: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    settings: Mapping[str, Any] | None = None,
    config: str | Path | None = None,
    skip_bad_images: bool = False,
    tensorboard: bool = False,
    run: str | Path | None = None,
    quiet: bool = False,
) -> Run:
    """Train a supernet on images, search its architectures, measure the front: all that `nas run` does.

    The same call goes on with a run that was interrupted, and with more `trials` extends a finished one. What is not
    given is as on the command line (`config.yaml` of a run has every key).

    Args:
        space: A `nas.SearchSpace`, the path of a YAML file, or the name of a space that comes with the program.
        data: A data spec, such as `folder:photos`; or a data set, anything with a length and items (image, label), or
            `{"train": ..., "validation": ..., "test": ...}` of them; None: scikit-learn's digits.
        objectives: Metrics to optimise, such as `["top1", "macs"]`, those in `metrics` by their names.
        metrics: What is measured besides (`nas.OwnMetric`): objectives, bounds, or columns of the tables.
        sampler: Who proposes architectures, such as `nsga2`; or what makes an Optuna sampler from `seed=`, such as
            `optuna.samplers.TPESampler`: every trial has a new one.
        callbacks: Told how the run goes on: objects with one or more of the methods of `nas.Callback`; what one raises
            ends the run as Ctrl-C does.
        epochs: Passes over the training images.
        trials: Architectures to measure over the life of the run; None: 200, or as many as the minutes are for.
        minutes: For all of it, planned by a short rehearsal; epochs, trials and finalists stand where they are given.
        finalists: Candidates that are trained on at the end; None: as many as usual, where that is worth it, and none
            with metrics of one's own, which are measured on the supernet's weights.
        supernet_trials: Supernets to train in all, as the section `tune` of the configuration says; more than 1 need
            Ray, and none of the program's own objects but callbacks.
        workers: Ray actors that measure; 0: this process, without Ray.
        ray_address: Of a Ray cluster; None: this machine.
        storage: Database URL of the Optuna study; None: a journal in the run.
        targets: Where latency is measured, such as `onnxruntime-cpu:batch=1`, or a device of one's own
            (`nas.OwnTarget`); empty: torch on the device.
        init: Weights to start from, such as `timm:deit_tiny_patch16_224`.
        teacher: A trained model that teaches every subnet.
        seed: Of splits, training and search.
        device: `auto`, `cpu` or `cuda`.
        precision: `auto`, `fp32` or `bf16`.
        settings: Any other key of the configuration or of the space: `{"train.lr": 1e-3, "constraints.max_macs": 2e6}`.
        config: YAML file of the configuration.
        skip_bad_images: Whether unreadable images are left out instead of stopping.
        tensorboard: Whether TensorBoard's event files are written, too, into `tensorboard` of the run.
        run: Folder of the run, resumed where it is there; None: the unfinished one of this space and configuration,
            else a new `results/<space>-<n>`.
        quiet: Whether nothing is said on standard error.

    Raises:
        ConfigError: What is asked for cannot be: every problem of space and settings at once, with a hint.
        KeyboardInterrupt: Ctrl-C; what is finished is kept, and the same call goes on.
    """
    asked, where = _asked(space), None if run is None else path_of("run", run)
    if objectives is not None:
        objectives = items_of("objectives", objectives, '"top1", "macs"')
    targets = items_of("targets", targets, '"torch-cpu"')
    callbacks = items_of("callbacks", callbacks, "MyCallback()")
    metrics = own_metrics(metrics)
    _check_numbers(trials, minutes, workers, finalists, supernet_trials)
    for word, text in (("ray_address", ray_address), ("storage", storage)):
        if not isinstance(text, str | None):
            raise ConfigError(f"{word}: {text!r:.80} is no text")
    for_space, for_config = split_settings(written_settings(settings))
    own_sampling = own_sampler(sampler)
    if metrics and finalists:
        raise ConfigError("finalists have weights of their own, on which no metric of one's own is measured")
    own = Own(
        metrics=metrics,
        targets=own_targets(targets),
        data=None if isinstance(data, str) else data,
        sampler=own_sampling,
    )
    flags = {
        "data.spec": own_name(_named(data)) if own.data is not None else data,
        "search.own_metrics": {metric.name: metric.to_dict() for metric in metrics} or None,
        "search.objectives": None if objectives is None else list(objectives),
        "search.sampler": own_name(sampler) if own_sampling is not None else sampler,
        "train.epochs": epochs,
        "evaluate.targets": [t if isinstance(t, str) else own_name(t) for t in targets] or None,
        "init": init,
        "teacher": teacher,
        "seed": seed,
        "device": device,
        "precision": precision,
        "data.skip_bad_images": skip_bad_images or None,
    }
    resolved = resolve_config(None if config is None else path_of("config", config), for_config, flags)
    if supernet_trials > 1:
        if resolved.own_names:
            text = "supernet_trials: they are trained in processes that have no data, metric or target of this program"
            raise ConfigError(text, hint="leave it out")
        check_supernet_trials(resolved, asked, for_space, workers)
    # After what is cheap to check: it takes seconds.
    from nas.jobs import Budget, TensorBoard, check_budget, own_callbacks, plan_job, several, start

    told = (*([TensorBoard()] if tensorboard else []), *own_callbacks(callbacks))
    budget = Budget(
        trials=trials or DEFAULT_TRIALS,
        workers=workers,
        train_workers=workers,
        ray_address=ray_address,
        storage=storage,
        supernet_trials=supernet_trials,
        finalists=0 if metrics else finalists,
    )
    check_budget(budget)
    reporter, call = (
        Reporter(quiet=quiet),
        _call(space, flags, settings, trials=trials, minutes=minutes, run=run and str(run)),
    )

    def begun(say: Reporter, scratch: Path | None = None, plan: RunPlan | None = None) -> "Session":
        return start(asked, for_space, resolved, where, say, scratch=scratch, plan=plan, command=call, own=own)

    plan: RunPlan | None = None
    if minutes is not None:
        with temporary_folder("plan") as folder:
            new = begun(Reporter(quiet=True), folder / "new")
            is_new, rehearsed = new.run.path.is_relative_to(folder), replace(new, reporter=reporter)
            plan = new.run.manifest.plan or plan_job(
                rehearsed, budget, minutes, scratch=folder / "rehearsal", start_s=0.0, trials=trials, is_new=is_new
            )
    session = begun(reporter, plan=plan)
    if (plan := session.run.manifest.plan) is not None:
        budget = replace(budget, trials=trials or plan.trials)
        budget = replace(budget, finalists=plan.finalists if budget.finalists is None else budget.finalists)
    several.run(replace(session, callbacks=told), budget)
    return Run(session.run.path, own=own, quiet=quiet)


def _asked(space: Any) -> SearchSpace | Path:
    if not isinstance(space, SearchSpace | str | Path):
        hint = "the path or name of one, or nas.SearchSpace.from_yaml(...) of the text or the keys of a file"
        raise ConfigError(f"space: {space!r:.80} is no search space", hint=hint)
    return space if isinstance(space, SearchSpace) else Path(space)


def _check_numbers(trials: Any, minutes: Any, workers: Any, finalists: Any, supernet_trials: Any) -> None:
    """Raise a ConfigError where an argument is no number, or one that the command line does not take."""
    counts = {"trials": (trials, 1), "workers": (workers, 0), "finalists": (finalists, 0)}
    for word, (value, least) in {**counts, "supernet_trials": (supernet_trials, 1)}.items():
        if value is None and word in ("trials", "finalists"):
            continue
        if not isinstance(value, Integral):
            raise ConfigError(f"{word}: {value!r:.80} is no whole number")
        if int(value) < least:
            raise ConfigError(f"{word}: {value} is less than {least}")
    if finalists == 1:
        raise ConfigError("finalists: 1 leaves nothing to choose from", hint="16 are eight levels of cost, two each")
    if minutes is not None and not (isinstance(minutes, Real) and 0 < float(minutes) <= MOST_MINUTES):
        raise ConfigError(f"minutes: {minutes!r:.80} is no number above 0 and at most {MOST_MINUTES:,.0f}")


def _named(data: Any) -> Any:
    """What a data set is called by: of several that which trains."""
    return data.get("train", data) if isinstance(data, Mapping) else data


def _call(
    space: "SearchSpace | str | Path", flags: Mapping[str, Any], settings: Mapping[str, Any] | None, **others: Any
) -> str:
    """The call in words, as the run keeps it."""
    words = {"data.spec": "data", "search.own_metrics": "metrics"}
    given = {words.get(key, key.rpartition(".")[2]): value for key, value in flags.items()}
    given |= {"metrics": [*(given["metrics"] or ())] or None, **others, "settings": dict(settings or {}) or None}
    name = space.name if isinstance(space, SearchSpace) else str(space)
    named = [f"{key}={value!r}" for key, value in given.items() if value is not None]
    return f"{NAME}.search({', '.join([repr(name), *named])})"
