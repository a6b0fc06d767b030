"""Architectures trained alone: the same training as any other, each done once whatever happens, and `trust`."""

import json
import shutil
import signal
import time

import numpy as np
import pytest
import torch
from small_runs import command, digits, one_thread, python, search_process, tiny_space
from small_spaces import randomise
from small_spaces import space as space_of_every_operator

from nas.arch import cost
from nas.arch.architecture import Architecture
from nas.base.errors import ConfigError, TrainingError
from nas.base.progress import Reporter
from nas.evaluation.accuracy import count_correct, top1_percent
from nas.jobs.alone import (
    StandAloneEvaluator,
    StandAloneSetup,
    build_stand_alone,
    copy_slice,
    image_arrays,
    recipe_digest,
    space_of_one,
)
from nas.jobs.session import reopen
from nas.jobs.trust import choose
from nas.model.supernet import Supernet
from nas.settings.config import EvaluateConfig, RunConfig, SearchConfig, TrainConfig
from nas.space.space import SearchSpace, parse_space
from nas.training.trained import load_trained
from nas.training.trainer import SupernetTrainer

CPU = torch.device("cpu")
RECIPE = TrainConfig(epochs=2, batch_size=256, warmup_epochs=0, lr=0.01, checkpoint_minutes=1e-9)
CONFIG = RunConfig(train=RECIPE, search=SearchConfig(objectives=("top1",)))
CHEAP = ("--architectures=5", "--seeds=2", "--epochs=1", "--workers=0")
PATIENCE_S = 150


@pytest.fixture(autouse=True)
def _single_threaded():
    with one_thread():
        yield


def setup(folder, **changes):
    fields = {
        "space": tiny_space(),
        "config": CONFIG,
        "seed": 3,
        "recipe": "0123abcd",
        "folder": folder,
        "device": "cpu",
        "precision": "fp32",
        "info": digits().info,
    }
    return StandAloneSetup(**(fields | changes))


def architecture():
    return tiny_space().sample(np.random.default_rng(4))


def trainer(folder, space, seed=3, recipe=RECIPE):
    return SupernetTrainer(
        Supernet(space, seed=seed),
        digits().train,
        recipe,
        seed=seed,
        device=CPU,
        precision="fp32",
        directory=folder,
    )


# --- a space of one architecture ---


@pytest.mark.parametrize("seed", range(12))
def test_a_space_of_one_architecture_holds_it_and_no_other(seed):
    space = space_of_every_operator()
    rng = np.random.default_rng(seed)
    chosen, other = space.sample(rng), space.sample(rng)
    alone = space_of_one(space, chosen)
    assert alone.size() == 1
    assert alone.smallest() == alone.largest() == alone.sample(rng) == chosen
    assert (other in alone) == (other == chosen)


def test_a_network_alone_that_starts_from_its_slice_answers_as_the_supernet_does():
    space = SearchSpace.from_yaml("search_spaces/cifar_joint.yaml")
    whole = Supernet(space).eval()
    randomise(whole)
    images = torch.randn(2, 3, 32, 32)
    for seed in range(6):
        chosen = space.sample_stratified(np.random.default_rng(seed))
        alone = Supernet(space_of_one(space, chosen), seed=1).eval()
        with torch.no_grad():
            assert not torch.equal(alone(images, chosen), whole(images, chosen))
            copy_slice(whole, alone)
            assert torch.equal(alone(images, chosen), whole(images, chosen))


# --- one training ---


def test_the_accuracy_is_that_of_the_trained_network_measured_on_its_own(tmp_path):
    longer = RECIPE.model_copy(update={"epochs": 8, "batch_size": 64, "checkpoint_minutes": 1.0})
    todo = setup(tmp_path / "trust", config=CONFIG.model_copy(update={"train": longer}))
    measured = StandAloneEvaluator(todo, digits()).evaluate(architecture())
    trained = trainer(tmp_path / "own", space_of_one(tiny_space(), architecture()), recipe=longer).run()
    subnet = trained.extract(architecture())
    correct = count_correct(subnet, digits().search, batch_size=50, device=CPU, precision="fp32")
    assert measured.values["top1"] == top1_percent(correct)
    assert measured.values["top1"] > 20  # ten classes: it has learned something
    assert measured.conditions.split == "search"
    assert "latency_ms" not in measured.values


def test_the_seed_decides_the_training_and_the_config_of_the_run_how_much_is_measured(tmp_path):
    def top1(folder, **changes):
        return StandAloneEvaluator(setup(tmp_path / folder, **changes), digits()).evaluate(architecture())

    one, again, other = top1("a"), top1("b"), top1("c", seed=4)
    assert one.correct == again.correct != other.correct
    few = top1("d", config=CONFIG.model_copy(update={"evaluate": EvaluateConfig(max_images=50)}))
    assert few.conditions.num_images == 50


def test_a_training_that_was_at_its_end_when_it_was_killed_is_not_done_again(tmp_path):
    """The weights of its last checkpoint are measured, whatever they are."""
    todo = setup(tmp_path)
    other = trainer(
        tmp_path / todo.name(architecture()) / "supernet", space_of_one(todo.space, architecture())
    )
    randomise(other.trained(), seed=5)
    other.save(other.schedule.steps)
    measured = StandAloneEvaluator(todo, digits()).evaluate(architecture())
    subnet = other.trained().extract(architecture())
    correct = count_correct(subnet, digits().search, batch_size=64, device=CPU, precision="fp32")
    assert measured.values["top1"] == top1_percent(correct)


def test_checkpoints_of_something_else_are_dropped_and_the_training_begins_anew(tmp_path):
    todo = setup(tmp_path / "trust")
    folder = todo.folder / todo.name(architecture()) / "supernet"
    foreign = trainer(folder, space_of_one(todo.space, architecture()), seed=9)
    foreign.save(foreign.schedule.steps)
    measured = StandAloneEvaluator(todo, digits()).evaluate(architecture())
    straight = StandAloneEvaluator(setup(tmp_path / "straight"), digits()).evaluate(architecture())
    assert measured.correct == straight.correct


def test_a_training_that_diverges_is_an_error_of_this_architecture(tmp_path):
    hopeless = CONFIG.model_copy(update={"train": RECIPE.model_copy(update={"lr": 1e30})})
    with pytest.raises(TrainingError, match="finite"):
        StandAloneEvaluator(setup(tmp_path, config=hopeless), digits()).evaluate(architecture())


def test_workers_get_train_and_search_images_and_no_test_image(tmp_path):
    arrays = image_arrays(digits())
    assert sorted(arrays) == ["search/images", "search/labels", "train/images", "train/labels"]
    evaluator = build_stand_alone(setup(tmp_path), arrays)
    assert evaluator.session.data.train.digest == digits().train.digest


def test_a_recipe_has_a_name_of_its_own_that_what_cannot_matter_leaves_alone():
    hashes = {"train": "a", "search": "b", "test": "c"}

    def named(**changes):
        return recipe_digest(CONFIG.model_copy(update=changes), hashes, "fp32")

    assert named() == named(seed=5) == named(train=RECIPE.model_copy(update={"checkpoint_minutes": 3.0}))
    others = [
        named(train=RECIPE.model_copy(update={"lr": 0.02})),
        named(train=RECIPE.model_copy(update={"epochs": 3})),
        named(init="file:x"),
        named(evaluate=EvaluateConfig(max_images=9)),
        recipe_digest(CONFIG, hashes | {"train": "x"}, "fp32"),
        recipe_digest(CONFIG, hashes, "bf16"),
    ]
    assert len({named(), *others}) == 7


# --- the command ---


@pytest.fixture(scope="module")
def home(finished, tmp_path_factory):
    """A copy of a finished run, and what `trust` says of it."""
    folder = tmp_path_factory.mktemp("trust") / "r"
    shutil.copytree(finished.folder, folder)
    with one_thread():
        done = command("trust", folder, *CHEAP)
    assert done.code == 0, done.stderr
    return folder, json.loads(done.stdout)


def trainings(folder):
    """Record by file name, and when it was written."""
    return {
        path.name: (path.read_text(), path.stat().st_mtime_ns) for path in (folder / "trust").glob("*.json")
    }


def outline(values):
    return {key: value for key, value in values.items() if key != "run"}


def test_trust_writes_its_answer_a_figure_and_a_record_of_every_training(home):
    folder, printed = home
    assert json.loads((folder / "trust.json").read_text()) == printed
    assert printed["schema_version"] == 1
    assert (printed["num_architectures"], printed["num_seeds"], printed["epochs"]) == (5, 2, 1)
    assert printed["failed"] == []
    assert (folder / "figures" / "trust.png").stat().st_size > 10_000
    assert (
        len(trainings(folder)) == len(list((folder / "trust").iterdir())) == 10
    )  # and no checkpoint is left
    low, high = printed["kendall_tau_ci"] or (None, None)
    assert low is None or low <= printed["kendall_tau"] <= high


def test_inherited_accuracy_is_that_of_the_supernets_subnets(home):
    folder, printed = home
    session = reopen(folder, Reporter(quiet=True))
    supernet = load_trained(session.run, session.space, session.device)
    for row in printed["architectures"]:
        subnet = supernet.extract(Architecture.from_dict(row["architecture"]))
        correct = count_correct(subnet, session.data.search, batch_size=50, device=CPU, precision="fp32")
        assert row["inherited_top1"] == top1_percent(correct)


def test_the_same_command_trains_nothing_again_and_larger_ones_only_what_is_new(home, tmp_path):
    folder = tmp_path / "r"
    shutil.copytree(home[0], folder)
    before = trainings(folder)
    again = command("trust", folder, *CHEAP)
    assert json.loads(again.stdout) == home[1]
    assert "10 trainings, 10 done already" in again.stderr
    assert trainings(folder) == before

    more = command("trust", folder, "--architectures=6", "--seeds=3", "--epochs=1", "--workers=0")
    assert "18 trainings, 10 done already" in more.stderr
    after = trainings(folder)
    assert {name: after[name] for name in before} == before
    assert len(after) == 18
    rows = json.loads(more.stdout)["architectures"]
    for row, same in zip(rows, home[1]["architectures"], strict=False):
        assert row["digest"] == same["digest"]
        assert row["stand_alone_top1_by_seed"][:2] == same["stand_alone_top1_by_seed"]


def test_an_architecture_whose_training_failed_is_left_out_and_counted(home, tmp_path):
    folder = tmp_path / "r"
    shutil.copytree(home[0], folder)
    victim = sorted((folder / "trust").glob("*.json"))[0]
    record = json.loads(victim.read_text())
    victim.write_text(json.dumps(record | {"top1": None, "error": "loss is not finite"}))
    done = command("trust", folder, *CHEAP)
    values = json.loads(done.stdout)
    assert done.code == 0
    assert values["num_architectures"] == 4
    assert values["failed"] == [
        {"digest": record["digest"], "seed": record["seed"], "error": "loss is not finite"}
    ]
    assert record["digest"] not in {row["digest"] for row in values["architectures"]}
    assert f"{record['digest']}, seed {record['seed']}: loss is not finite" in done.stderr

    other = next(p for p in (folder / "trust").glob("*.json") if record["digest"] not in p.name)
    other.write_text(json.dumps(json.loads(other.read_text()) | {"top1": None, "error": "out of memory"}))
    hopeless = command("trust", folder, *CHEAP)
    assert (hopeless.code, hopeless.stdout) == (1, "")
    assert "3 architectures were trained to their end, 4 are needed" in hopeless.stderr


def test_a_damaged_record_is_named_and_not_replaced(home, tmp_path):
    folder = tmp_path / "r"
    shutil.copytree(home[0], folder)
    victim = sorted((folder / "trust").glob("*.json"))[0]
    victim.write_text('{"top1": ')
    done = command("trust", folder, *CHEAP)
    assert done.code == 2
    assert f"{victim}: not the record of a training" in done.stderr
    assert victim.read_text() == '{"top1": '


def test_a_run_is_refused_that_has_no_trained_supernet_and_counts_that_rank_nothing(finished, tmp_path):
    folder = tmp_path / "r"
    shutil.copytree(finished.folder, folder)
    for arguments, words in (
        (("--architectures=3",), "needs at least 4"),
        (("--seeds=0",), "trained at least once"),
    ):
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
def test_a_trust_killed_again_and_again_ends_as_one_that_was_not_and_trains_nothing_twice(home, tmp_path):
    """Kills come when a record is there, and in the middle of a training, which then goes on."""
    folder = tmp_path / "r"
    shutil.copytree(home[0], folder)
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
    assert outline(json.loads(done.stdout)) == outline(home[1])
    after = trainings(folder)
    assert {name: after[name] for name in known} == known
    assert not [path for path in (folder / "trust").iterdir() if path.is_dir()]
    assert not list(folder.rglob("*.tmp"))


@pytest.mark.ray
@pytest.mark.slow
def test_two_workers_train_what_one_process_trains(home, tmp_path):
    folder = tmp_path / "r"
    shutil.copytree(home[0], folder)
    shutil.rmtree(folder / "trust")
    arguments = ["trust", str(folder), *CHEAP[:-1], "--workers=2"]
    with search_process(arguments, tmp_path) as process:
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, stderr
    assert outline(json.loads(stdout)) == outline(home[1])
    assert "Warning" not in stderr


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
