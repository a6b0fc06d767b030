"""The Optuna study behind a search: proposes architectures, is told how they did, survives a kill.

A proposal depends on the seed, its number and the results the sampler may see, and on nothing else: every
number has a sampler of its own, and trial n sees the results of trials up to n - window, whether or not later
ones have arrived. So neither the order in which workers finish, nor a kill, nor stopping changes a proposal.
"""

import warnings
from collections.abc import Container, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from nas.architecture import Architecture
from nas.config import SamplerName
from nas.errors import RunError
from nas.metrics import LATENCY, Objective
from nas.search.journal import GroupCommitJournal
from nas.space import SearchSpace
from nas.trial import Measurement

ATTRIBUTE = "nas"
"""User attribute of the study (what it searches) and of each trial (what was measured)."""

WINDOW = 8
"""Keeps up to 4 workers busy with 2 trials each; results then do not depend on the number of workers."""


FIRST_GENERATION = 2**31
"""Seed word of the designs a search starts from; trial numbers, the other words in its place, stay below."""


class ArchitectureStudy:
    """Architectures as Optuna trials. A new study begins with the largest and the smallest architecture.

    Then come designs spread evenly over the MACs range, up to the population size; not for `random`.

    Args:
        space: What may be proposed.
        objectives: What is optimised; their metrics' raw values are told, each with its direction.
        sampler: `nsga2`, `tpe` or `random`.
        population_size: NSGA-II's.
        seed: Of every proposal.
        storage: Path of the journal, or a database URL (`postgresql://...`, `sqlite:///...`).
        window: Of a new study; a loaded one keeps its own, so that it can go on with more or fewer workers.
        name: The study's name in the storage; has to be the run's own where runs share a database.

    Attributes:
        window: Trial n is proposed from the results of trials up to n - window; so many can be in flight.

    Raises:
        RunError: The storage cannot be used, is being written by another process, or holds another search.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        sampler: SamplerName,
        population_size: int,
        seed: int,
        storage: Path | str,
        *,
        window: int = WINDOW,
        name: str = "architectures",
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space = space
        self.objectives = tuple(objectives)
        self._seed = seed
        self._num_designs = 2 if sampler == "random" else population_size
        self._journal: GroupCommitJournal | None = None
        self._distributions: dict[str, BaseDistribution] = {
            parameter: CategoricalDistribution([_plain(value) for value in values])
            for parameter, values in space.choices().items()
            if len(values) > 1
        }
        self._sampler = _NumberedSampler(sampler, population_size, seed, self._distributions)
        identity = {
            "space": space.digest,
            "objectives": [objective.metric.name for objective in objectives],
            "sampler": sampler,
            "population_size": population_size,
            "seed": seed,
        }
        try:
            self._storage = self._open(storage)
            self._study = self._load(name, identity, window, storage)
            self.window: int = self._study.user_attrs[ATTRIBUTE]["window"]
            self._sampler.view = _View(name, self._storage, self._sampler, self.window)
            self._enqueue_known()
        except BaseException:
            self.close()
            raise

    def _open(self, storage: Path | str) -> BaseStorage:
        if isinstance(storage, str) and "://" in storage:
            return open_database(storage)
        self._journal = GroupCommitJournal(storage)
        try:
            return JournalStorage(self._journal)
        except (KeyError, TypeError, AssertionError, ValueError) as error:
            raise RunError(
                f"{storage} is not an Optuna journal: {error!r}", hint="restore or delete the file"
            ) from error

    def _load(self, name: str, identity: Mapping[str, Any], window: int, storage: Path | str) -> optuna.Study:
        study = optuna.create_study(
            storage=self._storage,
            study_name=name,
            directions=[objective.metric.direction for objective in self.objectives],
            sampler=self._sampler,
            load_if_exists=True,
        )
        known = study.user_attrs.get(ATTRIBUTE)
        if known is None:
            with warnings.catch_warnings():
                # The only way to label optuna-dashboard's axes, and the only experimental call here.
                warnings.filterwarnings("ignore", ".*set_metric_names is experimental", ExperimentalWarning)
                study.set_metric_names([objective.metric.name for objective in self.objectives])
            study.set_user_attr(ATTRIBUTE, {**identity, "window": window})
        elif differences := [
            f"  {key}: there {known.get(key)!r}, here {value!r}"
            for key, value in identity.items()
            if known.get(key) != value
        ]:
            raise RunError(
                f"study {name!r} in {_masked(storage)} is of another search\n" + "\n".join(differences),
                hint="use the options it was started with, or another --run DIR",
            )
        return study

    def _enqueue_known(self) -> None:
        # Uniform draws leave both ends of the MACs range empty; a search that started from them lost to evenly
        # spread random architectures at the dear end (results/LOG.md).
        rng = np.random.default_rng(np.random.SeedSequence([self._seed, FIRST_GENERATION]))
        spread = [self.space.sample_stratified(rng) for _ in range(self._num_designs - 2)]
        known = [self.space.largest(), self.space.smallest(), *spread]
        known = list(dict.fromkeys(known))
        for architecture in known[len(self._study.get_trials(deepcopy=False)) :]:
            self.enqueue(architecture)
        self.commit()

    def _encode(self, architecture: Architecture) -> dict[str, Any]:
        params = self.space.encode(architecture)
        return {name: _plain(params[name]) for name in self._distributions}

    def ask(self) -> tuple[int, Architecture]:
        """Propose: the trial's number and its architecture. An enqueued architecture comes first.

        Call `commit` before anything is done with it.
        """
        trial = self._study.ask()
        self._complete(trial)
        return trial.number, self.space.decode(trial.params)

    def _complete(self, trial: optuna.Trial) -> None:
        # Of an enqueued trial too: NSGA-II's population is the trials that passed through the sampler.
        _ = trial.relative_params
        for name, distribution in self._distributions.items():
            assert isinstance(distribution, CategoricalDistribution)
            trial.suggest_categorical(name, distribution.choices)

    def enqueue(self, architecture: Architecture) -> None:
        """Make `architecture` the next proposal."""
        self._study.enqueue_trial(self._encode(architecture))

    def tell_complete(self, number: int, measurement: Measurement) -> None:
        """Finish a trial with the objectives' values. All values are attached, for optuna-dashboard."""
        trial = self._trial(number)
        values = dict(measurement.values)
        trial.set_user_attr(ATTRIBUTE, {"digest": self.space.decode(trial.params).digest, "values": values})
        bound = self.space.constraints.max_latency_ms
        if bound is not None and LATENCY.name in values:
            trial.set_constraint(LATENCY.name, values[LATENCY.name] - bound)
        told = [float(values[objective.metric.name]) for objective in self.objectives]
        self._study.tell(number, told, state=TrialState.COMPLETE)

    def tell_failed(self, number: int, reason: str) -> None:
        """Finish a trial that could not be measured."""
        trial = self._trial(number)
        trial.set_user_attr(ATTRIBUTE, {"digest": self.space.decode(trial.params).digest, "error": reason})
        self._study.tell(number, state=TrialState.FAIL)

    def _trial(self, number: int) -> optuna.Trial:
        study_id = self._storage.get_study_id_from_name(self._study.study_name)
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(study_id, number)
        return optuna.trial.Trial(self._study, trial_id)

    def running(self) -> dict[int, Architecture]:
        """Trials proposed and not finished, by number; after loading, what a stop or a crash left behind."""
        found = {}
        for frozen in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            trial = self._trial(frozen.number)
            # Stopped within `ask`.
            if len(frozen.params) < len(self._distributions):
                self._complete(trial)
            found[frozen.number] = self.space.decode(trial.params)
        return found

    def finished(self) -> dict[int, str]:
        """Digests of the trials that were told, by number."""
        states = (TrialState.COMPLETE, TrialState.FAIL)
        trials = self._study.get_trials(deepcopy=False, states=states)
        return {trial.number: trial.user_attrs.get(ATTRIBUTE, {}).get("digest", "") for trial in trials}

    def architecture(self, number: int) -> Architecture:
        """What was proposed under a number."""
        return self.space.decode(self._trial(number).params)

    def generator(self, number: int) -> np.random.Generator:
        """Random numbers for what the loop decides at a number; the same in every process."""
        return np.random.default_rng(_seeds(self._seed, number)[2])

    def commit(self) -> None:
        """Wait until everything so far is on disk. A database does that by itself."""
        if self._journal is not None:
            self._journal.commit()

    def close(self) -> None:
        """Release the storage. Uncommitted changes to a journal are lost."""
        if self._journal is not None:
            self._journal.close()


class _NumberedSampler(BaseSampler):
    """Hands every trial to a new sampler, seeded by (seed, number) and shown the view of the study."""

    view: "_View"

    def __init__(
        self, kind: SamplerName, population_size: int, seed: int, distributions: dict[str, BaseDistribution]
    ) -> None:
        self._kind = kind
        self._population_size = population_size
        self._seed = seed
        self._distributions = distributions

    def infer_relative_search_space(
        self,
        study: optuna.Study,  # noqa: ARG002 - Optuna's signature
        trial: FrozenTrial,  # noqa: ARG002
    ) -> dict[str, BaseDistribution]:
        # All parameters are always suggested: nothing to infer, which makes NSGA-II 1.4 to 2 times as fast.
        return self._distributions

    def sample_relative(
        self,
        study: optuna.Study,  # noqa: ARG002
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        inner_seed, uniform_seed, _ = _seeds(self._seed, trial.number)
        inner = self._inner(int(inner_seed.generate_state(1)[0]))
        self.view.now = trial.number
        params = inner.sample_relative(self.view, trial, search_space) if inner and search_space else {}
        # What is left open (first population, mutations, random search) is not drawn by the inner sampler:
        # its second generator has the seed of its first, so mutations would repeat the crossover's draws.
        rng = np.random.default_rng(uniform_seed)
        for name, distribution in search_space.items():
            assert isinstance(distribution, CategoricalDistribution)
            drawn = distribution.choices[int(rng.integers(len(distribution.choices)))]
            params.setdefault(name, drawn)
        return params

    def _inner(self, seed: int) -> BaseSampler | None:
        if self._kind == "nsga2":
            return NSGAIISampler(population_size=self._population_size, seed=seed)
        if self._kind == "tpe":
            return TPESampler(multivariate=True, constant_liar=True, seed=seed)
        return None

    def sample_independent(
        self,
        study: optuna.Study,  # noqa: ARG002
        trial: FrozenTrial,  # noqa: ARG002
        param_name: str,
        param_distribution: BaseDistribution,  # noqa: ARG002
    ) -> Any:
        raise AssertionError(f"{param_name} is always sampled with the others")


class _View(optuna.Study):
    """The study as trial `now` may see it: results of trials after `now - window` seem still to come."""

    def __init__(self, name: str, storage: BaseStorage, sampler: BaseSampler, window: int) -> None:
        super().__init__(name, storage, sampler)
        self._window = window
        self.now = 0

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,  # noqa: ARG002
    ) -> list[FrozenTrial]:
        trials = self._storage.get_all_trials(self._study_id, deepcopy=deepcopy)
        seen = [trial if trial.number <= self.now - self._window else _as_running(trial) for trial in trials]
        return [trial for trial in seen if states is None or trial.state in states]


def _seeds(seed: int, number: int) -> list[np.random.SeedSequence]:
    """Independent seeds at a number: of Optuna's sampler, of uniform draws, of the loop."""
    return np.random.SeedSequence([seed, number]).spawn(3)


def _as_running(trial: FrozenTrial) -> FrozenTrial:
    if not trial.state.is_finished():
        return trial
    return FrozenTrial(
        number=trial.number,
        state=TrialState.RUNNING,
        value=None,
        values=None,
        datetime_start=trial.datetime_start,
        datetime_complete=None,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs={},
        system_attrs=trial.system_attrs,
        intermediate_values={},
        trial_id=trial._trial_id,
    )


def open_database(url: str) -> BaseStorage:
    """Connect to a database for studies, and make its tables where there are none.

    Raises:
        RunError: It cannot be reached or used; the password is not shown.
    """
    try:
        return optuna.storages.get_storage(RDBStorage(url))
    except (SQLAlchemyError, ImportError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(
            f"storage {_masked(url)} cannot be used: {reason}",
            hint="a path, or a URL such as postgresql://user:password@host/database",
        ) from error


def _masked(storage: Path | str) -> str:
    """Hide the password of a URL."""
    if isinstance(storage, Path) or "://" not in storage:
        return str(storage)
    try:
        return make_url(storage).render_as_string(hide_password=True)
    except SQLAlchemyError:
        return storage.split("://")[0] + "://..."


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value
