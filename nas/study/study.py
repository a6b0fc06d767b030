"""The Optuna study behind a search: proposes architectures, is told how they did, survives a kill."""

import math
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.trial import TrialState
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from nas.arch import Architecture
from nas.base import TOP1, Objective, RunError, hidden_words, hide_secrets
from nas.runs import Trial
from nas.space import SearchSpace, known_designs, plain_shapes
from nas.study.journal import SearchJournal
from nas.study.samplers import ATTRIBUTE, NumberedSampler, View, seed_words

WINDOW = 8
"""Keeps up to 4 workers busy with 2 trials each; results then do not depend on the number of workers."""


STORAGE_ERRORS = (SQLAlchemyError, StorageInternalError)
"""What any call of a study may raise when its database is lost; `ArchitectureStudy.lost` explains them."""

STORAGE_HINT = "a path, or a URL such as postgresql://user@host/database; the password: NAS_STORAGE, ~/.pgpass"

FIRST_GENERATION = 2**31
"""Seed word of the designs a search starts from; trial numbers, the other words in its place, stay below."""

PLAIN_EVERY = 3  # trials behind the first designs, as long as there are plain shapes left


def window_of(num_workers: int) -> int:
    """How many trials may be in flight: up to 4 workers get the same proposals, more get 8 trials each.

    The oldest trial in flight holds the others up, so a slow one idles a large pool whose window is small:
    simulated, with 1 % of the evaluations ten times slower, 128 workers were busy 31 % of the time with 2 trials
    each and over 90 % with 16 (docs/scale.md).
    """
    return WINDOW if num_workers <= 4 else 8 * num_workers


class ArchitectureStudy:
    """Architectures as Optuna trials. A new study begins with the largest and the smallest architecture.

    Then come, but for `random`: the seeds it is given (such as the front of an earlier run), the space's known designs,
    and up to the population size plain ViTs and designs spread evenly over the MACs range, by turns. Then every third
    trial is a plain ViT until all of `plain_shapes` were proposed. So what is proposed does not depend on how many
    trials are asked for, and a short search searches, too. `raced_plain` are the digests of these shapes; there are
    none where the space's seeds leave them out, nor in a study that a version without them began.

    Trial n is proposed from the results of
    trials up to n - window; so many can be in flight, and a loaded study keeps its own window, so that it can go on
    with more or fewer workers. The metrics' raw values are told, each with its direction.

    The storage is the path of the journal, or a database URL (`postgresql://...`, `sqlite:///...`); where runs share
    one, the study's name in it has to be the run's own. `own_sampler` makes a sampler from `seed=`, where `sampler` is
    the name of one that is not ours. `run` tells runs of
    one name in a database apart. `own_bounds` are bounds beside those of the space (`Measurement.keeps`).

    Raises:
        RunError: The storage cannot be used, is being written by another process, or holds another search.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        sampler: str,
        population_size: int,
        seed: int,
        storage: Path | str,
        *,
        seeds: Sequence[Architecture] = (),
        window: int = WINDOW,
        name: str = "architectures",
        own_sampler: Callable[..., BaseSampler] | None = None,
        own_bounds: Mapping[str, float] | None = None,
        run: str | None = None,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space = space
        self.objectives = tuple(objectives)
        self._seed = seed
        self._bounds = {**space.constraints.max_latency, **(own_bounds or {})}
        self._cleanup = ExitStack()
        self._where = _shown(storage)
        self._distributions: dict[str, BaseDistribution] = {
            name: CategoricalDistribution(values) for name, values in space.choices().items() if len(values) > 1
        }
        self._sampler = NumberedSampler(
            sampler, space, objectives, population_size, seed, self._distributions, own_sampler
        )
        identity = {
            "space": space.digest,
            "objectives": [objective.metric.name for objective in objectives],
            "sampler": sampler,
            "population_size": population_size,
            "seed": seed,
        } | ({} if run is None else {"run": run})
        try:
            self._storage = self._open(storage)
            races_plain = sampler != "random" and "plain" in space.seeds
            self._study = self._load(name, identity, {"window": window, "races_plain": races_plain})
            began = self._study.user_attrs[ATTRIBUTE]
            self.window: int = began["window"]
            shapes = _coarse_to_fine(plain_shapes(space)) if races_plain and began.get("races_plain") else []
            self.raced_plain = frozenset(shape.digest for shape in shapes)
            designs, later = self._first_designs(sampler, population_size, seeds, shapes)
            self._sampler.view = View(name, self._storage, self._sampler, self.window)
            self._sampler.num_designs = len(designs)
            self._sampler.fixed = {len(designs) + PLAIN_EVERY * i - 1: later[i - 1] for i in range(1, len(later) + 1)}
            trials = self._study.get_trials(deepcopy=False)
            self.num_waiting = sum(trial.state is TrialState.WAITING for trial in trials)  # enqueued
            for architecture in designs[len(trials) :]:
                self.enqueue(architecture)
            self._enqueue_fixed(len(trials))
        except STORAGE_ERRORS as error:
            self.close()
            raise self.lost(error) from error
        except BaseException:
            self.close()
            raise

    def _open(self, storage: Path | str) -> BaseStorage:
        if isinstance(storage, str) and "://" in storage:
            database = self._cleanup.enter_context(_database(storage))
            return optuna.storages.get_storage(database)
        journal = self._cleanup.enter_context(closing(SearchJournal(storage)))
        try:
            return JournalStorage(journal)
        except (KeyError, TypeError, AssertionError, ValueError) as error:
            raise RunError(
                f"{storage} is not an Optuna journal: {error!r}", hint="restore or delete the file"
            ) from error

    def _load(self, name: str, identity: Mapping[str, Any], began: Mapping[str, Any]) -> optuna.Study:
        if name in optuna.get_all_study_names(self._storage):
            study = optuna.load_study(study_name=name, storage=self._storage, sampler=self._sampler)
        else:
            directions = [objective.metric.direction for objective in self.objectives]
            study = optuna.create_study(
                storage=self._storage, study_name=name, directions=directions, sampler=self._sampler
            )
        known = study.user_attrs.get(ATTRIBUTE)
        if known is None:
            with warnings.catch_warnings():
                # The only way to label optuna-dashboard's axes, and the only experimental call here.
                warnings.filterwarnings("ignore", ".*set_metric_names is experimental", ExperimentalWarning)
                study.set_metric_names([objective.metric.name for objective in self.objectives])
            study.set_user_attr(ATTRIBUTE, {**identity, **began})
        elif differences := [
            f"  {key}: there {known.get(key)!r}, here {value!r}"
            for key, value in identity.items()
            if known.get(key) != value and (key != "run" or key in known)  # which older ones do not say
        ]:
            raise RunError(
                f"study {name!r} in {self._where} is of another search\n" + "\n".join(differences),
                hint="use the options it was started with, or another --run DIR",
            )
        return study

    def _first_designs(
        self, sampler: str, population_size: int, seeds: Sequence[Architecture], shapes: Sequence[Architecture]
    ) -> tuple[list[Architecture], list[Architecture]]:
        """What a search starts from, and the plain shapes that are proposed later."""
        ends = [self.space.largest(), self.space.smallest()]
        if sampler == "random":
            return list(dict.fromkeys(ends)), []
        known = dict.fromkeys([*ends, *seeds, *known_designs(self.space, self.space.seeds).values()])
        plain = [shape for shape in shapes if shape not in known]
        places = max(0, population_size - len(known))
        first, later = plain[: (places + 1) // 2], plain[(places + 1) // 2 :]
        # Uniform draws leave both ends of the MACs range empty; a search that started from them lost to evenly
        # spread random architectures at the dear end (results/LOG.md).
        rng = np.random.default_rng(np.random.SeedSequence([self._seed, FIRST_GENERATION]))
        spread = [self.space.sample_stratified(rng) for _ in range(places - len(first))]
        by_turns = [one for pair in zip_longest(first, spread) for one in pair if one is not None]
        return list(dict.fromkeys([*known, *by_turns])), later

    def ask(self) -> tuple[int, Architecture]:
        """Propose: the trial's number and its architecture. An enqueued architecture comes first."""
        if self.num_waiting:
            trial = self._study.ask()
            self.num_waiting -= 1
        else:
            # Optuna's `ask` looks through all trials for one that waits.
            trial_id = self._storage.create_new_trial(self._study._study_id)
            trial = optuna.trial.Trial(self._study, trial_id)
        self._complete(trial)
        self._enqueue_fixed(trial.number + 1)
        return trial.number, self.space.decode(trial.params)

    def _enqueue_fixed(self, number: int) -> None:
        """Enqueue what is proposed at the next number whatever the sampler says."""
        if number in self._sampler.fixed and not self.num_waiting:
            self.enqueue(self._sampler.fixed[number])

    def _complete(self, trial: optuna.Trial) -> None:
        # Of an enqueued trial too: NSGA-II's population is the trials that passed through the sampler.
        _ = trial.relative_params
        for name, distribution in self._distributions.items():
            assert isinstance(distribution, CategoricalDistribution)
            trial.suggest_categorical(name, distribution.choices)

    def enqueue(self, architecture: Architecture) -> None:
        """Make `architecture` the next proposal."""
        self._study.enqueue_trial(self._sampler.encode(architecture))
        self.num_waiting += 1

    def tell(self, ended: Trial) -> None:
        """Finish a trial. All that was measured is attached, for our samplers and for optuna-dashboard.

        A repeat of a pruned architecture is pruned again. A failure has no values at all.
        """
        trial = self._trial(ended.number)
        found = ended.measurement
        attribute: dict[str, Any] = {"digest": ended.architecture.digest}
        if found is None:
            trial.set_user_attr(ATTRIBUTE, {**attribute, "error": ended.error or ""})
            self._study.tell(ended.number, state=TrialState.FAIL)
            return
        values = attribute["values"] = found.values
        if TOP1.name in found.intervals:
            attribute["top1_interval"] = list(found.intervals[TOP1.name])
        if ended.whole is None:
            attribute |= {"beaten_by": found.beaten_by, "num_images": found.conditions.num_images}
            trial.set_user_attr(ATTRIBUTE, attribute)
            self._study.tell(ended.number, state=TrialState.PRUNED)
            return
        trial.set_user_attr(ATTRIBUTE, attribute)
        for name, bound in self._bounds.items():
            if math.isfinite(excess := found.excess(name, bound)):
                trial.set_constraint(name, excess)
        told = [float(values[objective.metric.name]) for objective in self.objectives]
        self._study.tell(ended.number, told, state=TrialState.COMPLETE)

    def _trial(self, number: int) -> optuna.Trial:
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)
        return optuna.trial.Trial(self._study, trial_id)

    def proposed(self) -> dict[int, str]:
        """All proposals by number: the digest of the architecture once the trial was told, before that nothing."""
        states = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED)
        return {
            trial.number: trial.user_attrs.get(ATTRIBUTE, {}).get("digest", "?") if trial.state.is_finished() else ""
            for trial in self._study.get_trials(deepcopy=False, states=states)
        }

    def architecture(self, number: int) -> Architecture:
        """What was proposed under a number."""
        trial = self._trial(number)
        if len(trial.params) < len(self._distributions):  # killed within `ask`
            self._complete(trial)
        return self.space.decode(trial.params)

    def generator(self, number: int) -> np.random.Generator:
        """Random numbers for what the loop decides at a number; the same in every process."""
        return np.random.default_rng(seed_words(self._seed, number)[2])

    def close(self) -> None:
        """Release the storage."""
        self._cleanup.close()

    def lost(self, error: Exception) -> RunError:
        """Say in one error what one of `STORAGE_ERRORS` means."""
        return RunError(
            f"storage {self._where} was lost: {hide_secrets(_reason(error))}",
            hint="once it is back, the same command resumes",
        )


def _coarse_to_fine(shapes: Sequence[Architecture]) -> list[Architecture]:
    """Shapes in an order whose every beginning is spread over all of them: the ends, then the middles of gaps."""
    order = list(dict.fromkeys([0, len(shapes) - 1])) if shapes else []
    while len(order) < len(shapes):
        order.append(max(range(len(shapes)), key=lambda i: min(abs(i - taken) for taken in order)))
    return [shapes[i] for i in order]


def check_storage(storage: str) -> None:
    """Find out whether studies can be kept there; else a RunError, which does not show the password."""
    if "://" in storage:
        with _database(storage):
            return
    path = Path(storage)
    parent = path.absolute().parent
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", storage):
        problem = "is neither a URL nor a path"
    elif path.is_dir():
        problem = "is a folder"
    elif not (parent.is_dir() and os.access(parent, os.W_OK)):
        problem = f"cannot be written into {parent}"
    else:
        return
    raise RunError(f"storage {_shown(storage)} {problem}", hint=STORAGE_HINT)


@contextmanager
def _database(url: str) -> Iterator[RDBStorage]:
    """A connection, with tables where there are none."""
    try:
        # A connection that died between two trials is replaced instead of ending the search.
        database = RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    except Exception as error:  # drivers raise what they like
        raise RunError(
            f"storage {_shown(url)} cannot be used: {hide_secrets(_reason(error), of=url)}", hint=STORAGE_HINT
        ) from error
    try:
        yield database
    finally:
        database.remove_session()
        database.engine.dispose()


def _reason(error: BaseException) -> str:
    """First line; of the driver's own error where Optuna wrapped it in a general one."""
    if isinstance(error, StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, ArgumentError | ValueError) and not isinstance(error, NoSuchModuleError):
        return "not the URL of a database"  # the error may quote any part of it
    return next(iter(str(error).splitlines()), type(error).__name__)


def _shown(storage: Path | str) -> str:
    """The storage without its password."""
    return hidden_words([str(storage)])[0]
