"""Proposals are a function of the seed, the number and what was told a window before."""

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from replay_tables import small_table
from search_fakes import digits, make_study, tiny_space
from study_steps import proposals

from nas.base.errors import ConfigError
from nas.base.metrics import MACS, TOP1
from nas.study.samplers import check_own_sampler
from nas.study.study import WINDOW

SAMPLERS = ("predictor", "nsga2", "nsga3", "tpe", "evolution", "random")  # and gp, whose asks take seconds


def test_known_designs_are_parents_of_the_first_generation(tmp_path):
    study = make_study(digits(), tmp_path / "j")
    proposals(study, 3)
    stock = optuna.load_study(study_name="architectures", storage=read_only(tmp_path / "j"))
    assert [trial.system_attrs["NSGAIISampler:generation"] for trial in stock.trials[:3]] == [0, 0, 0]


@pytest.mark.parametrize("made", [optuna.samplers.TPESampler, optuna.samplers.NSGAIISampler])
def test_a_sampler_of_several_objectives_passes(made):
    check_own_sampler(made, digits(), [TOP1, MACS])


def test_a_sampler_is_tried_behind_results_too():
    class Late(optuna.samplers.RandomSampler):
        def sample_independent(self, study, trial, name, distribution):
            known = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            return super().sample_independent(study, trial, name, distribution) if not known else "nothing"

    with pytest.raises(ConfigError, match="tried on a study of top1, macs it raises ValueError"):
        check_own_sampler(Late, digits(), [TOP1, MACS])


def test_a_sampler_of_one_objective_may_have_one():
    check_own_sampler(optuna.samplers.CmaEsSampler, digits(), [TOP1])
    with pytest.raises(ConfigError, match="multi-objective"):
        check_own_sampler(optuna.samplers.CmaEsSampler, digits(), [TOP1, MACS])


def read_only(path):
    return JournalStorage(JournalFileBackend(str(path)))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_seed_gives_the_same_proposals_also_when_resumed(tmp_path, sampler):
    space = digits()

    def study(name):
        return make_study(space, tmp_path / name, sampler)

    straight = proposals(study("a"), 40)
    assert proposals(study("b"), 40, reopen=lambda: study("b")) == straight
    assert proposals(make_study(space, tmp_path / "c", sampler, seed=1), 40)[2:] != straight[2:]
    assert len(set(straight)) > 20


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_when_results_arrive_does_not_change_proposals(tmp_path, sampler):
    straight = proposals(make_study(digits(), tmp_path / "a", sampler), 40)
    assert proposals(make_study(digits(), tmp_path / "b", sampler), 40, hold=WINDOW - 1) == straight


@pytest.mark.parametrize("sampler", ["nsga2", "tpe"])
def test_a_result_counts_from_a_window_later_on(tmp_path, sampler):
    straight = proposals(make_study(digits(), tmp_path / "a", sampler), 60)
    differ = 0
    for change in (12, 17, 22):
        changed = proposals(make_study(digits(), tmp_path / str(change), sampler), 60, change=change)
        assert changed[: change + WINDOW] == straight[: change + WINDOW]
        differ += changed != straight
    assert differ


def test_parameters_are_the_genes_with_a_choice(tmp_path):
    study = make_study(tiny_space(), tmp_path / "j")
    proposals(study, 1)
    trial = optuna.load_study(study_name="architectures", storage=read_only(tmp_path / "j")).trials[0]
    assert set(trial.params) == {"layers.00.num_heads", "layers.01.num_heads"}


def test_random_is_uniform_over_the_space(tmp_path):
    """Most networks have the greater depth; gene by gene, half of the draws would."""
    space = small_table().space
    deep = space.walk.count(space.walk.start, 3) / space.walk.total(space.walk.start, frozenset(space.depth))
    study = make_study(space, tmp_path / "j", "random")
    depths = [study.ask()[1].depth for _ in range(202)][2:]
    study.close()
    assert deep > 0.8
    assert abs(np.mean(np.array(depths) == 3) - deep) < 4 * (deep * (1 - deep) / 200) ** 0.5
