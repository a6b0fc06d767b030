"""Training in several processes: two of torch's own, and through Ray Train."""

import csv
from pathlib import Path

import psutil
import pytest
import torch
from own_processes import listening, seen_of
from small_runs import digits, few_digits, one_thread, tiny_space

from nas.base.errors import CheckpointError, RunError, TrainingError
from nas.data.store.part import Pixels
from nas.settings.config import RunConfig
from nas.training import distributed
from nas.training.distributed import TrainerSetup, train_distributed
from nas.training.sampling import drawn
from nas.training.world import World

CPU = torch.device("cpu")
RECIPES = {
    "default": {},
    "mixup": {"mixup": 0.5, "cutmix": 1.0},
    "sandwich": {"rule": "sandwich"},
    "decay": {"layer_decay": 0.8},
}
STORED = "stored"  # the default recipe, images from their file
UNEVEN = 35  # images a step: 17 for one process, 18 for the other


@pytest.fixture(autouse=True)
def _single_threaded():
    with one_thread():
        yield


def setup(directory: Path, **recipe) -> TrainerSetup:
    """Two epochs of few steps, and a checkpoint after each."""
    train = {"epochs": 2, "batch_size": UNEVEN, "num_random": 2, "lr": 1e-3, "warmup_epochs": 0}
    config = RunConfig(train={**train, "checkpoint_minutes": 1e-9, **recipe})
    return TrainerSetup(space=tiny_space(), config=config, precision="fp32", directory=directory)


def trained(made: TrainerSetup, world: World, *, is_stored: bool = False) -> dict[str, torch.Tensor]:
    """Weights after training, with the losses and the gradients of one more step, by name."""
    train = few_digits().train
    if is_stored:
        train = digits().train.part(0, len(train))
        assert isinstance(train.images, Pixels)
    trainer = made.trainer(train, CPU, world=world)
    found = dict(trainer.run().state_dict())
    architectures = drawn(made.space, made.config.train, seed=0, step=0, progress=0.5)
    losses = trainer.step.run(*trainer._batch(0), architectures, 0.5)
    gradients = {n: p.grad for n, p in trainer.supernet.named_parameters() if p.grad is not None}
    return found | {"losses": torch.tensor(losses)} | {f"gradient {n}": g for n, g in gradients.items()}


def process(rank: int, folder: Path) -> None:
    """One of two processes: trains by every recipe."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2)
    for name, recipe in RECIPES.items():
        found = trained(setup(folder / name, **recipe), World(rank, 2))
        torch.save(found, folder / f"{name}-{rank}.pt")
    torch.save(trained(setup(folder / STORED), World(rank, 2), is_stored=True), folder / f"{STORED}-{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """What each of two processes has at the end."""
    folder = tmp_path_factory.mktemp("pair")
    torch.multiprocessing.spawn(process, (folder,), nprocs=2)
    names = (*RECIPES, STORED)
    return {name: [torch.load(folder / f"{name}-{rank}.pt") for rank in range(2)] for name in names}, folder


def assert_close(one, other):
    """Equal but for rounding, which gradients that nearly cancel show most."""
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        tolerance = 1e-4 if name.startswith("gradient") else 1e-5
        difference = float((tensor - other[name]).abs().max())
        assert difference < tolerance, f"{name}: {difference}"


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_two_processes_train_the_weights_of_one(name, pair, tmp_path):
    assert_close(pair[0][name][0], trained(setup(tmp_path, **RECIPES[name]), World()))


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_processes_stay_equal_to_the_last_bit(name, pair):
    first, second = pair[0][name]
    assert first.keys() == second.keys()  # with the gradients: both used the same weights
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.slow
def test_images_from_a_file_train_in_two_processes_what_images_in_memory_do(pair, tmp_path):
    held, stored = pair[0]["default"], pair[0][STORED]
    for rank in range(2):
        assert held[rank].keys() == stored[rank].keys()
        assert all(torch.equal(held[rank][key], stored[rank][key]) for key in held[rank])
    assert_close(stored[0], trained(setup(tmp_path), World(), is_stored=True))


@pytest.mark.slow
def test_the_first_process_logs_how_the_operators_do(pair, tmp_path):
    def found(directory):
        with (directory / "log.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [bool(row["static_entropy"]) for row in rows] == [True] + [False] * (len(rows) - 2) + [True]
        return [float(row[name]) for row in (rows[0], rows[-1]) for name in ("static_entropy", "static_kl")]

    trained(setup(tmp_path), World())
    assert found(pair[1] / "default") == pytest.approx(found(tmp_path), abs=1e-5)


@pytest.mark.slow
def test_what_several_processes_wrote_one_can_resume(pair):
    found, folder = pair
    alone = setup(folder / "default").trainer(few_digits().train, CPU)
    assert alone.resume() == alone.schedule.steps
    weights = alone.trained().state_dict()
    assert all(torch.equal(weights[name], found["default"][0][name]) for name in weights)


def test_processes_that_find_different_checkpoints_do_not_train(tmp_path):
    assert distributed._disagreement([7, 7, 7], tmp_path) is None
    problem = distributed._disagreement([7, None], tmp_path)
    assert isinstance(problem, RunError)
    assert "(after steps: 7, none)" in problem.message
    damaged = CheckpointError("none is whole")
    assert distributed._disagreement([7, damaged], tmp_path) is damaged


def test_a_supernet_that_is_trained_needs_no_processes(tmp_path):
    made = setup(tmp_path)
    straight = made.trainer(few_digits().train, CPU).run().state_dict()
    again = train_distributed(made.trainer(few_digits().train, CPU), made, 2, "nowhere:1", pytest.fail).state_dict()
    assert all(torch.equal(again[name], straight[name]) for name in straight)


def through_ray(test):
    """Ray Train imports Ray Data, which warns of its own settings."""
    quiet = pytest.mark.filterwarnings("ignore::DeprecationWarning")
    for mark in (pytest.mark.ray, pytest.mark.slow, quiet):
        test = mark(test)
    return test


def training_processes() -> list[psutil.Process]:
    commands = seen_of(lambda process: (process, " ".join(process.cmdline())), itself=False)
    return [process for process, command in commands if "RayTrainWorker" in command]


@through_ray
def test_training_through_ray_survives_a_killed_process_and_ends_with_the_weights_of_one(tmp_path):
    long = {"epochs": 20, "lr": 1e-4}  # rounding grows with every step
    made = setup(tmp_path / "ray", **long)
    killed: list[int] = []
    steps: list[int] = []
    addresses: set[str] = set()

    def kill_one(progress):
        steps.append(progress.step)
        addresses.update(address.removeprefix("::ffff:") for address, _ in listening())
        if not killed and progress.step < progress.steps:
            max(training_processes(), key=lambda process: process.pid).kill()
            killed.append(progress.step)

    found = train_distributed(made.trainer(few_digits().train, CPU), made, 2, None, kill_one).state_dict()
    assert killed
    assert addresses - {"::1"} == {"127.0.0.1"}  # gloo, and the place where processes meet, included
    assert steps[-1] == 60
    assert_close(found, setup(tmp_path / "one", **long).trainer(few_digits().train, CPU).run().state_dict())
    left = {path.name for path in (tmp_path / "ray").iterdir() if not path.name.startswith("step-")}
    assert left == {"log.csv"}
    assert training_processes() == []


@through_ray
def test_an_error_in_the_processes_is_the_users_one_message(tmp_path):
    made = setup(tmp_path, lr=1e30)
    with pytest.raises(TrainingError, match="not finite") as caught:
        train_distributed(made.trainer(few_digits().train, CPU), made, 2, None, lambda _: None)
    assert "train.lr (now 1e+30)" in caught.value.hint
