"""Architectures trained alone: the same training as any other, each done once whatever happens, and `trust`."""

import json
import shutil
import signal
import time

import numpy as np
import pytest
import torch
from small_runs import command, one_thread, python, search_process, tiny_space
from trust_records import CHEAP, outline, trainings

from nas.arch import cost
from nas.arch.architecture import Architecture
from nas.base.errors import ConfigError
from nas.base.progress import Reporter
from nas.evaluation.accuracy import count_correct, top1_percent
from nas.jobs.session import reopen
from nas.jobs.trust import choose
from nas.space.space import SearchSpace, parse_space
from nas.training.trained import load_trained

CPU = torch.device("cpu")
PATIENCE_S = 500


@pytest.fixture(autouse=True)
def _single_threaded():
    with one_thread():
        yield


def architecture():
    return tiny_space().sample(np.random.default_rng(4))


# --- the command ---


def test_trust_writes_its_answer_a_figure_and_a_record_of_every_training(trusted_run):
    folder, printed = trusted_run
    assert json.loads((folder / "trust.json").read_text()) == printed
    assert printed["schema_version"] == 1
    assert (printed["num_architectures"], printed["num_seeds"], printed["epochs"]) == (5, 2, 1)
    assert printed["failed"] == []
    assert (folder / "figures" / "trust.png").stat().st_size > 10_000
    assert len(trainings(folder)) == len(list((folder / "trust").iterdir())) == 10  # and no checkpoint is left
    low, high = printed["kendall_tau_ci"] or (None, None)
    assert low is None or low <= printed["kendall_tau"] <= high


def test_inherited_accuracy_is_that_of_the_supernets_subnets(trusted_run):
    folder, printed = trusted_run
    session = reopen(folder, Reporter(quiet=True))
    supernet = load_trained(session.run, session.space, session.device)
    for row in printed["architectures"]:
        subnet = supernet.extract(Architecture.from_dict(row["architecture"]))
        correct = count_correct(subnet, session.data.search, batch_size=50, device=CPU, precision="fp32")
        assert row["inherited_top1"] == top1_percent(correct)


def test_a_run_is_refused_that_has_no_trained_supernet_and_counts_that_rank_nothing(finished, tmp_path):
    folder = tmp_path / "r"
    shutil.copytree(finished.folder, folder)
    for arguments, words in ((("--architectures=3",), "needs at least 4"), (("--seeds=0",), "trained at least once")):
        refused = command("trust", folder, *arguments)
        assert refused.code == 2
        assert words in refused.stderr
    shutil.rmtree(folder / "supernet")
    refused = command("trust", folder, *CHEAP)
    assert refused.code == 2
    assert "not trained yet" in refused.stderr
    assert not (folder / "trust").exists()


def test_counts_are_checked_before_torch_is_imported(tmp_path):
    done = python(
        "import sys\nfrom nas.cli import main\n"
        "print(main(['trust', 'nowhere', '--architectures', '2']), 'torch' in sys.modules)",
        tmp_path,
    )
    assert done.stdout.split() == ["2", "False"]


@pytest.mark.slow
def test_a_trust_killed_again_and_again_ends_as_one_that_was_not_and_trains_nothing_twice(trusted_run, tmp_path):
    """Kills come when a record is there, and in the middle of a training, which then goes on."""
    folder = tmp_path / "r"
    shutil.copytree(trusted_run[0], folder)
    shutil.rmtree(folder / "trust")
    arguments = ["trust", str(folder), *CHEAP]
    known = {}
    for goal in (1, 4, 7):
        with search_process(arguments, tmp_path) as process:
            deadline = time.monotonic() + PATIENCE_S
            while process.poll() is None and time.monotonic() < deadline:
                started = list(folder.glob("trust/*/supernet/step-00000002.json"))
                if len(list(folder.glob("trust/*.json"))) >= goal and started:
                    break
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
            process.wait()
        found = trainings(folder)
        assert goal <= len(found) < 10
        assert {name: found[name] for name in known} == known
        known = found
    done = command(*arguments)
    assert done.code == 0, done.stderr
    assert outline(json.loads(done.stdout)) == outline(trusted_run[1])
    after = trainings(folder)
    assert {name: after[name] for name in known} == known
    assert not [path for path in (folder / "trust").iterdir() if path.is_dir()]
    assert not list(folder.rglob("*.tmp"))


# --- selection ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits_space():
    return SearchSpace.from_yaml("search_spaces/digits.yaml")


@pytest.mark.parametrize("seed", [0, 7])
def test_one_architecture_is_chosen_from_each_equal_part_of_the_macs(digits_space, seed):
    low, high = digits_space.macs_range()
    chosen = choose(digits_space, 8, seed)
    places = [(cost.macs(a, digits_space.backbone) - low) / (high - low) for a in chosen]
    # Drawn as near to a wanted number of MACs as 2 % of it, where the space has an architecture there.
    assert np.abs(np.diff(sorted(places)) - 1 / 8).max() < 0.05
    assert all(architecture in digits_space for architecture in chosen)


def test_the_choice_is_the_same_for_the_same_seed_and_goes_on_with_a_larger_number(digits_space):
    chosen = choose(digits_space, 12, 0)
    assert choose(digits_space, 12, 0) == chosen
    assert choose(digits_space, 20, 0)[:12] == chosen
    assert choose(digits_space, 12, 1) != chosen
    assert len({architecture.digest for architecture in chosen}) == 12


def test_a_space_with_few_architectures_gives_each_of_them_once():
    few = parse_space(
        "name: few\nbackbone: {image_size: 8, patch_size: 2, num_classes: 10, head_dim: 8}\n"
        "embed_dim: [16, 24]\ndepth: [1, 2]\nlayers: {num_heads: [1, 2], mlp_ratio: 1}\n",
        "few.yaml",
    )
    chosen = choose(few, 100, 0)
    assert len(set(chosen)) == len(chosen) == few.size() == 12
    lonely = parse_space(
        "name: lonely\nbackbone: {image_size: 8, patch_size: 2, num_classes: 10, head_dim: 8}\n"
        "embed_dim: [16, 24]\ndepth: 1\nlayers: {num_heads: 1, mlp_ratio: 1}\n",
        "lonely.yaml",
    )
    with pytest.raises(ConfigError, match="lonely: only 2 architectures, too few to rank"):
        choose(lonely, 100, 0)
