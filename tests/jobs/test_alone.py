"""An architecture trained alone: the same recipe, its own record of weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_runs import digits, tiny_space
from small_spaces import randomise, stems
from small_spaces import space as space_of_every_operator

from nas.base.errors import TrainingError
from nas.evaluation.accuracy import count_correct, top1_percent
from nas.evaluation.evaluator import EvaluatorSetup
from nas.jobs.alone import (
    StandAloneEvaluator,
    StandAloneSetup,
    build_stand_alone,
    image_arrays,
    recipe_digest,
    space_of_one,
)
from nas.model.supernet import Supernet
from nas.settings.config import EvaluateConfig, RunConfig, SearchConfig, TrainConfig
from nas.space.space import SearchSpace
from nas.training.trainer import SupernetTrainer

CPU = torch.device("cpu")

RECIPE = TrainConfig(epochs=2, batch_size=256, warmup_epochs=0, lr=0.01, checkpoint_minutes=1e-9)

CONFIG = RunConfig(train=RECIPE, search=SearchConfig(objectives=("top1",)))


def setup(folder, **changes):
    config = changes.get("config", CONFIG)
    evaluation = EvaluatorSetup(
        space=tiny_space(),
        config=config.evaluate,
        info=digits().info,
        device="cpu",
        precision="fp32",
        supernet_digest="",
    )
    fields = {"evaluation": evaluation, "config": config, "seed": 3, "recipe": "0123abcd", "folder": folder}
    return StandAloneSetup(**(fields | changes))


def architecture():
    return tiny_space().sample(np.random.default_rng(4))


def trainer(folder, space, seed=3, recipe=RECIPE):
    return SupernetTrainer(
        Supernet(space, seed=seed), digits().train, recipe, seed=seed, device=CPU, precision="fp32", directory=folder
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
            alone.load_slices(whole.state_dict())
            assert torch.equal(alone(images, chosen), whole(images, chosen))


def test_a_network_alone_has_its_stem_and_takes_its_slice():
    whole = Supernet(stems()).eval()
    randomise(whole)
    images, rng = torch.randn(2, 1, 16, 16), np.random.default_rng(0)
    for stem in ("patch", "conv"):
        chosen = replace(whole.space.sample(rng), stem=stem)
        alone = space_of_one(whole.space, chosen)
        assert (alone.size(), alone.largest()) == (1, chosen)
        subnet = Supernet(alone).eval()
        subnet.load_slices(whole.state_dict())
        with torch.no_grad():
            assert torch.equal(subnet(images, chosen), whole(images, chosen))


def test_a_recipe_of_before_a_default_changed_has_the_name_that_its_trainings_were_kept_under():
    hashes = {"train": "a", "search": "b"}
    for others in ({}, {"same_attention": 0.5, "checkpoint_minutes": 3.0}):  # which do nothing to a network alone
        former = RunConfig(train=TrainConfig(lr=2e-3, static_guidance=0.2, **others))
        assert recipe_digest(former, hashes, "fp32") == "b8111992"  # of RunConfig() at fcac30b
    assert recipe_digest(RunConfig(), hashes, "fp32") != "b8111992"


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
    other = trainer(todo.path(architecture()) / "supernet", space_of_one(tiny_space(), architecture()))
    randomise(other.trained(), seed=5)
    other.save(other.schedule.steps)
    measured = StandAloneEvaluator(todo, digits()).evaluate(architecture())
    subnet = other.trained().extract(architecture())
    correct = count_correct(subnet, digits().search, batch_size=64, device=CPU, precision="fp32")
    assert measured.values["top1"] == top1_percent(correct)


def test_checkpoints_of_something_else_are_dropped_and_the_training_begins_anew(tmp_path):
    todo = setup(tmp_path / "trust")
    folder = todo.path(architecture()) / "supernet"
    foreign = trainer(folder, space_of_one(tiny_space(), architecture()), seed=9)
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
    assert evaluator.data.train.digest == digits().train.digest


def test_a_recipe_has_a_name_of_its_own_that_what_cannot_matter_leaves_alone():
    hashes = {"train": "a", "search": "b", "test": "c"}

    def named(**changes):
        return recipe_digest(CONFIG.model_copy(update=changes), hashes, "fp32")

    assert named() == named(seed=5) == named(train=RECIPE.model_copy(update={"checkpoint_minutes": 3.0}))
    assert named() == named(init_ordered=False)  # with nothing to order
    assert named(init="file:x") != named(init="file:x", init_ordered=False)
    others = [
        named(train=RECIPE.model_copy(update={"lr": 0.02})),
        named(train=RECIPE.model_copy(update={"epochs": 3})),
        named(init="file:x"),
        named(evaluate=EvaluateConfig(max_images=9)),
        recipe_digest(CONFIG, hashes | {"train": "x"}, "fp32"),
        recipe_digest(CONFIG, hashes, "bf16"),
    ]
    assert len({named(), *others}) == 7
