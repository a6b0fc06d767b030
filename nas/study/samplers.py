"""Which sampler proposes a trial, and what it may see.

A proposal depends on the seed, its number and the results the sampler may see, and on nothing else: every
number has a sampler of its own, and trial n sees the results of trials up to n - window, whether or not later
ones have arrived. So neither the order in which workers finish, nor a kill, nor stopping changes a proposal.
"""

import copy
import warnings
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseGASampler, BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, TPESampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from nas.arch import Architecture
from nas.base import BALANCED, LATENCIES, METRICS, TOP1, ConfigError, Metric, Objective
from nas.space import SearchSpace
from nas.study import evolution, predictor
from nas.study.predictor import Observation

ATTRIBUTE = "nas"
"""User attribute of the study (what it searches) and of each trial (what was measured)."""

UNIFORM_TRIES = 1000
"""Draws for one trial of `random`: bounds that keep 1 % of a space leave 1 in 20,000 to repair."""

SHARED_ERROR = 0.3
"""Of a whole measurement's binomial error, what surrogates take for noise: the rest is common to all networks, which
are shown the same images."""

OURS = {TOP1.name, BALANCED.name, *METRICS, *LATENCIES}
"""What is measured, but for the metrics of a Python program."""

REHEARSED = 32
"""Random results that a sampler of a Python program is tried on: more than what samplers draw at random first."""

SMALLEST_ROUND = 8
ROUND_SHARE = 16  # a round is at least this part of the trials before it, so that fitting stays cheap


@dataclass(eq=False, repr=False)
class NumberedSampler(BaseSampler):
    """Hands every trial to a new sampler, seeded by (seed, number) and shown the view of the study.

    Set these before the first proposal: `view`, the study as a trial may see it; `num_designs`, the trials after which
    the predictor's rounds begin; `fixed`, what is proposed later whatever the sampler says, by number.
    `own` makes a sampler that is not one of ours, from `seed=`. `distributions` are the parameters with more than one
    choice.
    """

    kind: str
    space: SearchSpace
    objectives: Sequence[Objective]
    population_size: int
    seed: int
    distributions: dict[str, BaseDistribution]
    own: Callable[..., BaseSampler] | None = None
    view: "View" = field(init=False)
    num_designs: int = field(default=0, init=False)
    fixed: Mapping[int, Architecture] = field(default_factory=dict, init=False)
    _architectures: dict[int, Architecture] = field(default_factory=dict, init=False)  # by number
    _round: tuple[int, list[Architecture]] = field(default=(-1, []), init=False)
    _is_first: bool = field(default=True, init=False)  # proposal of this process

    def infer_relative_search_space(self, *_: Any, **__: Any) -> dict[str, BaseDistribution]:
        """All parameters are always suggested: nothing to infer, which makes NSGA-II 1.4 to 2 times as fast."""
        return self.distributions

    def sample_relative(
        self,
        study: optuna.Study,  # noqa: ARG002
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """Propose a value for every parameter."""
        inner_seed, uniform_seed, _ = seed_words(self.seed, trial.number)
        self.view.now = trial.number
        rng = np.random.default_rng(uniform_seed)
        if not search_space:
            return {}
        if self.kind == "evolution":
            return self.encode(self._evolve(trial.number, rng))
        if self.kind == "predictor":
            return self.encode(self._predict(trial.number, rng))
        if self.kind == "random":
            return self.encode(self.space.sample(rng, tries=UNIFORM_TRIES))
        number = int(inner_seed.generate_state(1)[0])
        if self.own is not None:
            return self._ask_own(self.own(seed=number), trial)
        inner = self._inner(number)
        if isinstance(inner, BaseGASampler) and self._is_first:
            self._forget_parents(inner, trial.number)
        self._is_first = False
        params = inner.sample_relative(self.view, trial, search_space) if inner else {}
        # What is left open (first population, mutations) is not drawn by the inner sampler:
        # its second generator has the seed of its first, so mutations would repeat the crossover's draws.
        for name, distribution in search_space.items():
            assert isinstance(distribution, CategoricalDistribution)
            drawn = distribution.choices[int(rng.integers(len(distribution.choices)))]
            params.setdefault(name, drawn)
        return params

    def _ask_own(self, sampler: BaseSampler, trial: FrozenTrial) -> dict[str, Any]:
        """What a sampler that is not one of ours proposes, asked as Optuna asks it."""
        sampler.before_trial(self.view, trial)
        wanted = sampler.infer_relative_search_space(self.view, trial)
        params = sampler.sample_relative(self.view, trial, wanted)
        for name, distribution in self.distributions.items():
            if name not in params:
                params[name] = sampler.sample_independent(self.view, trial, name, distribution)
        return params

    def _forget_parents(self, inner: BaseGASampler, number: int) -> None:
        """Have the parents that an earlier process chose in this very proposal, in which it was killed, chosen again.

        Parents that are read back have another order, and NSGA-III draws as it chooses.
        """
        storage, study_id = self.view._storage, self.view._study_id
        prefix, attribute = inner._get_parent_cache_key_prefix(), inner._get_generation_key()
        names = (name for name in storage.get_study_system_attrs(study_id) if name.startswith(prefix))
        newest = max((int(name.removeprefix(prefix)) for name in names), default=0)
        earlier = storage.get_all_trials(study_id, deepcopy=False)[:number]
        if newest and not any(trial.system_attrs.get(attribute) == newest for trial in earlier):
            storage.set_study_system_attr(study_id, f"{prefix}{newest}", None)

    def _inner(self, seed: int) -> BaseSampler | None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            match self.kind:
                case "nsga2":
                    return NSGAIISampler(population_size=self.population_size, seed=seed)
                case "nsga3":
                    return NSGAIIISampler(population_size=self.population_size, seed=seed)
                case "tpe":
                    return TPESampler(multivariate=True, constant_liar=True, seed=seed)
                case "gp":
                    return GPSampler(seed=seed, n_startup_trials=self.num_designs)
                case _:
                    return None

    def sample_independent(self, *_: Any, **__: Any) -> Any:
        """Never asked for: an AssertionError."""
        raise AssertionError("every parameter is sampled with the others")

    # --- our own -------------------------------------------------------------------------------------------

    def encode(self, architecture: Architecture) -> dict[str, Any]:
        """An architecture as values of the parameters."""
        params = self.space.encode(architecture)
        return {name: params[name] for name in self.distributions}

    def _architecture(self, trial: FrozenTrial) -> Architecture:
        if trial.number not in self._architectures:
            self._architectures[trial.number] = self.space.decode(trial.params)
        return self._architectures[trial.number]

    def _before(self, number: int) -> list[FrozenTrial]:
        """Trials with a lower number, results hidden as at the time of `number`."""
        self.view.now = number
        trials = self.view.get_trials(deepcopy=False)
        return [t for t in trials if t.number < number and len(t.params) == len(self.distributions)]

    def _evolve(self, number: int, rng: np.random.Generator) -> Architecture:
        size = self.population_size
        trials = self._before(number)
        seen = {self._architecture(trial).digest for trial in trials}
        self.view.now = number - number % size  # parents are those of the generation
        measured = self.view.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if number < size or not measured:
            return evolution.child(self.space, (), seen, is_mutant=False, rng=rng)
        signs = [-1.0 if o.metric.direction == "maximize" else 1.0 for o in self.objectives]
        losses = np.array([trial.values for trial in measured]) * signs
        parents = evolution.select([self._architecture(t) for t in measured], losses, size)
        return evolution.child(self.space, parents, seen, is_mutant=number % size < size // 2, rng=rng)

    def _predict(self, number: int, rng: np.random.Generator) -> Architecture:
        start, size = round_of(number, self.num_designs)
        if start is None:  # only where an enqueued design was lost
            return self.space.sample_stratified(rng)
        if number in self.fixed:
            return self.fixed[number]
        free = [n for n in range(start, start + size) if n not in self.fixed]
        if self._round[0] != start:
            self._round = (start, self._propose_round(start, len(free)))
        proposed, place = self._round[1], free.index(number)
        return proposed[place] if place < len(proposed) else self.space.sample(rng)

    def _propose_round(self, start: int, size: int) -> list[Architecture]:
        trials = self._before(start)
        observations: dict[str, Observation] = {}
        pending: list[Architecture] = []
        for trial in trials:
            architecture = self._architecture(trial)
            if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
                observations.setdefault(architecture.digest, _observation(trial, architecture))
            elif trial.state is TrialState.RUNNING:
                pending.append(architecture)
        if sum(observation.is_whole for observation in observations.values()) < 2:
            return []
        pending = [architecture for architecture in pending if architecture.digest not in observations]
        seen = {self._architecture(trial).digest for trial in trials}
        rng = np.random.default_rng(seed_words(self.seed, start)[1])
        return predictor.propose(self.space, self.objectives, list(observations.values()), pending, seen, size, rng)


def round_of(number: int, num_designs: int) -> tuple[int | None, int]:
    """First trial and size of the round that a trial belongs to; no round for the designs before the first."""
    if number < num_designs:
        return None, num_designs
    start, size = num_designs, SMALLEST_ROUND
    while number >= start + size:
        start += size
        size = max(SMALLEST_ROUND, start // ROUND_SHARE)
    return start, size


def _observation(trial: FrozenTrial, architecture: Architecture) -> Observation:
    known = trial.user_attrs[ATTRIBUTE]
    values: Mapping[str, float] = known["values"]
    latencies = {name: values[name] for name in LATENCIES if name in values}
    own = {name: values[name] for name in values if name not in OURS}
    if trial.state is TrialState.COMPLETE:
        balanced = values.get(BALANCED.name)
        low, high = known.get("top1_interval", (0.0, 0.0))  # not in studies of earlier versions
        error = SHARED_ERROR * (high - low) / 4
        return Observation(architecture, values.get(TOP1.name), error, latencies, True, balanced, own)
    low, high = known["top1_interval"]
    return Observation(architecture, (low + high) / 2, (high - low) / 4, latencies, False, own=own)


class View(optuna.Study):
    """The study as trial `now` may see it: results of trials after `now - window` seem still to come."""

    def __init__(self, name: str, storage: BaseStorage, sampler: BaseSampler, window: int) -> None:
        super().__init__(name, storage, sampler)
        self._window = window
        self._ended: list[FrozenTrial] = []  # trials 0, 1, 2, ... as far as all have ended
        self.now = 0

    def ended(self) -> list[FrozenTrial]:
        """Trials whose end may be seen, by number. Not to be changed.

        Asks the storage for new ones only; listing all of 5,000 trials took most of a proposal's time.
        """
        num_visible = max(0, self.now - self._window + 1)
        rest = [self._trial(number) for number in range(len(self._ended), num_visible)]
        while rest and rest[0].state.is_finished():
            self._ended.append(rest.pop(0))
        return self._ended[:num_visible] + [trial for trial in rest if trial.state.is_finished()]

    def _trial(self, number: int) -> FrozenTrial:
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
        return self._storage.get_trial(trial_id)

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,  # noqa: ARG002
    ) -> list[FrozenTrial]:
        if states is not None and TrialState.RUNNING not in states and TrialState.WAITING not in states:
            found = [trial for trial in self.ended() if trial.state in states]
            return copy.deepcopy(found) if deepcopy else found
        trials = self._storage.get_all_trials(self._study_id, deepcopy=deepcopy)
        seen = [trial if trial.number <= self.now - self._window else _as_running(trial) for trial in trials]
        return [trial for trial in seen if states is None or trial.state in states]


def check_own_sampler(make: Callable[..., BaseSampler], space: SearchSpace, metrics: Sequence[Metric]) -> None:
    """Have a sampler that is not one of ours propose, behind no result and behind random ones, in memory.

    Raises:
        ConfigError: It raises, as one of a single objective does of several, or proposes what is no choice.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    parameters: dict[str, BaseDistribution] = {
        name: CategoricalDistribution(values) for name, values in space.choices().items() if len(values) > 1
    }
    storage, rng = optuna.storages.InMemoryStorage(), np.random.default_rng(0)
    sampler = NumberedSampler("", space, (), SMALLEST_ROUND, 0, parameters, make)
    directions = [metric.direction for metric in metrics]
    study = optuna.create_study(storage=storage, study_name="tried", directions=directions, sampler=sampler)
    sampler.view = View("tried", storage, sampler, 1)
    try:
        for results in (0, REHEARSED):
            for _ in range(results):
                params, values = sampler.encode(space.sample(rng, tries=1)), rng.random(len(metrics)).tolist()
                study.add_trial(optuna.create_trial(params=params, distributions=parameters, values=values))
            trial = study.ask()
            for name, distribution in parameters.items():
                assert isinstance(distribution, CategoricalDistribution)
                trial.suggest_categorical(name, distribution.choices)
            study.tell(trial, state=TrialState.FAIL)
    except Exception as error:  # what another's code raises
        names = ", ".join(metric.name for metric in metrics)
        text = f"sampler: tried on a study of {names} it raises {type(error).__name__}: {error}"
        hint = "one that proposes categories, by as many objectives: TPESampler, NSGAIISampler, GPSampler, ..."
        raise ConfigError(text, hint=hint) from error


def seed_words(seed: int, number: int) -> list[np.random.SeedSequence]:
    """Independent seeds at a number: of Optuna's sampler, of our own draws, of the loop."""
    return np.random.SeedSequence([seed, number]).spawn(3)


def _as_running(trial: FrozenTrial) -> FrozenTrial:
    if not trial.state.is_finished():
        return trial
    running = copy.copy(trial)
    running.state, running.values, running.datetime_complete = TrialState.RUNNING, None, None
    running.user_attrs, running.intermediate_values = {}, {}
    return running
