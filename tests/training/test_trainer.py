import csv
from copy import deepcopy

import numpy as np
import pytest
import torch
from small_runs import digits, few_digits, greys, one_thread, tiny_space, trainer

from nas.arch.backbone import Backbone
from nas.base.errors import CheckpointError, TrainingError
from nas.evaluation.accuracy import count_correct, top1_percent
from nas.model.supernet import Supernet
from nas.settings.config import TrainConfig
from nas.space.domain import LayerDomain
from nas.space.space import SearchSpace
from nas.training.checkpoint import load_checkpoint, save_checkpoint
from nas.training.trainer import SupernetTrainer, balanced_weights


@pytest.fixture(autouse=True)
def _single_threaded():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Weights after training without interruption."""
    with one_thread():
        return weights(trainer(tmp_path_factory.mktemp("straight")).run())


def weights(supernet):
    return {name: tensor.clone() for name, tensor in supernet.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class StoppedError(Exception):
    pass


def stop_at(step):
    def stop(progress):
        if progress.step == step:
            raise StoppedError

    return stop


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(straight, tmp_path):
    again, other = trainer(tmp_path / "again"), trainer(tmp_path / "other", seed=1)
    assert equal(weights(again.run()), straight)
    assert not equal(weights(other.run()), straight)
    assert again.digest() != other.digest()
    assert len(again.digest()) == 12


def test_averages_are_those_of_timm_also_after_a_resume(tmp_path):
    for _ in range(2):
        one = trainer(tmp_path, static_guidance=0.0)
        start = one.begin()
        timms = deepcopy(one.ema)
        for step in range(start, start + 3):
            one.train_step(step)
            timms.update(one.supernet, step=step)
            assert equal(weights(one.ema.module), weights(timms.module))
        one.save(start + 3)
    assert start == 3


def test_a_training_in_parts_is_the_whole_with_a_checkpoint_and_its_log_after_each(straight, tmp_path):
    parts = trainer(tmp_path, checkpoint_minutes=60)
    parts.run(until=3)
    assert parts.resume() == 3
    assert "\n3," in (tmp_path / "log.csv").read_text()
    steps = []
    trainer(tmp_path, checkpoint_minutes=60).run(lambda progress: steps.append(progress.step), until=5)
    assert steps == [4, 5]
    assert equal(weights(trainer(tmp_path).run()), straight)


@pytest.mark.parametrize("step", [1, 4, 7, 8])
def test_training_that_was_stopped_and_resumed_ends_with_the_same_weights(straight, tmp_path, step):
    with pytest.raises(StoppedError):
        trainer(tmp_path).run(stop_at(step))
    resumed, steps = trainer(tmp_path), []
    assert equal(weights(resumed.run(lambda progress: steps.append(progress.step))), straight)
    assert steps == list(range(step + 1, 9))


@pytest.mark.parametrize(
    "recipe",
    [
        {"mixup": 0.5, "cutmix": 1.0},
        {"ema_decay": 0.0},
        {"drop_path": 0.3},
        {"trainable": "head_and_norms", "layer_decay": 0.8},
        {"rule": "sandwich"},
        {"rule": "sandwich", "drop_path": 0.2, "progressive": 0.8, "layer_decay": 0.7},
        {"distill": "none", "auto_augment": "rand-m5-n1", "hflip": 0.5, "crop_scale": (0.6, 1.0)},
    ],
    ids=lambda recipe: "+".join(recipe),
)
def test_resuming_is_exact_with_every_part_of_the_recipe(tmp_path, recipe):
    whole = weights(trainer(tmp_path / "whole", **recipe).run())
    with pytest.raises(StoppedError):
        trainer(tmp_path / "stopped", **recipe).run(stop_at(3))
    assert equal(weights(trainer(tmp_path / "stopped", **recipe).run()), whole)


PARTS = ("patch_embed.", "blocks.0.", "blocks.1.", "head.")


def test_without_a_rate_a_wide_network_alone_is_trained_at_the_one_of_its_width(tmp_path):
    layer = LayerDomain(num_tokens=(4,), num_heads=(2,))
    backbone = Backbone(image_size=8, patch_size=4, num_classes=10, head_dim=48)
    space = SearchSpace(name="wide", backbone=backbone, embed_dim=(96,), depth=(1,), layers=(layer,))
    recipe = TrainConfig(epochs=2, batch_size=32, warmup_epochs=0)
    rates: list[float] = []
    alone = SupernetTrainer(
        Supernet(space), few_digits().train, recipe,
        seed=0, device=torch.device("cpu"), precision="fp32", directory=tmp_path,
    )  # fmt: skip
    alone.run(lambda progress: rates.append(progress.lr))
    assert 0.9e-3 < max(rates) <= 1e-3


def test_layer_wise_decay_slows_early_layers_more_than_late_ones(tmp_path):
    decayed = trainer(tmp_path, layer_decay=0.5)
    names = {id(parameter): name for name, parameter in decayed.supernet.named_parameters()}
    scale = {
        names[id(parameter)]: group["lr_scale"]
        for group in decayed.optimizer.param_groups
        for parameter in group["params"]
        if "static_map" not in names[id(parameter)]  # faster than others
    }
    by_part = {part: {scale[name] for name in scale if name.startswith(part)} for part in PARTS}
    assert by_part == {part: {0.5 ** (len(PARTS) - 1 - place)} for place, part in enumerate(PARTS)}


def test_a_decay_whose_powers_vanish_trains_the_last_layer_alone(tmp_path):
    told = []
    trainer(tmp_path, layer_decay=5e-324).run(lambda progress: told.append(progress.lr))
    assert len(told) == 8
    assert told[0] == pytest.approx(1e-3, rel=0.1)


def test_a_torn_newest_checkpoint_costs_only_the_steps_since_the_one_before(straight, tmp_path):
    with pytest.raises(StoppedError):
        trainer(tmp_path).run(stop_at(5))
    newest = tmp_path / "step-00000005.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    steps = []
    assert equal(weights(trainer(tmp_path).run(lambda progress: steps.append(progress.step))), straight)
    assert steps[0] == 5


@pytest.mark.parametrize(
    ("changes", "difference"),
    [({"lr": 0.5}, "recipe: "), ({"seed": 1}, "seed: 0, expected 1"), ({"split": digits().train}, "train_split: ")],
    ids=["recipe", "seed", "data"],
)
def test_a_checkpoint_of_other_training_is_refused_with_the_difference(tmp_path, changes, difference):
    with pytest.raises(StoppedError):
        trainer(tmp_path).run(stop_at(1))
    with pytest.raises(CheckpointError, match=difference):
        trainer(tmp_path, **changes).run()


def test_a_checkpoint_of_another_space_is_refused(tmp_path):
    with pytest.raises(StoppedError):
        trainer(tmp_path).run(stop_at(1))
    other = SupernetTrainer(
        Supernet(tiny_space().with_num_classes(11)),
        few_digits().train,
        trainer(tmp_path).config,
        seed=0,
        device=torch.device("cpu"),
        precision="fp32",
        directory=tmp_path,
    )
    with pytest.raises(CheckpointError, match="space: "):
        other.run()


def test_a_checkpoint_that_numbers_the_optimisers_averages_goes_on_with_new_ones(tmp_path):
    """As earlier versions wrote them: numbers go by an order that another version need not have."""
    trainer(tmp_path).run(until=3)
    checkpoint = load_checkpoint(tmp_path, expected={})
    kept = {name: tensor for name, tensor in checkpoint.tensors.items() if not name.startswith("optimizer.")}
    kept["optimizer.0.exp_avg"] = torch.zeros(1)
    save_checkpoint(tmp_path, 3, kept, checkpoint.metadata)
    resumed = trainer(tmp_path)
    assert resumed.resume() == 3
    assert not resumed.optimizer.state_dict()["state"]
    resumed.run()


def test_minutes_between_checkpoints_are_no_part_of_the_recipe(straight, tmp_path):
    with pytest.raises(StoppedError):
        trainer(tmp_path).run(stop_at(2))
    assert equal(weights(trainer(tmp_path, checkpoint_minutes=9.0).run()), straight)


def test_a_loss_that_is_not_finite_stops_training_and_says_what_to_lower(tmp_path):
    diverging = trainer(tmp_path, lr=1e9)
    with pytest.raises(TrainingError, match=r"step \d+: loss or gradient is not finite") as caught:
        diverging.run()
    assert "train.lr (now 1e+09)" in caught.value.hint


def test_training_teaches_the_largest_and_the_smallest_subnet(tmp_path):
    taught, losses = trainer(tmp_path, split=greys().train, epochs=10, lr=1e-2, checkpoint_minutes=9), []
    supernet = taught.run(lambda progress: losses.append(progress.losses))
    assert losses[-1][0] < 0.7 * losses[0][0]
    fixed = {"batch_size": 64, "device": torch.device("cpu"), "precision": "fp32"}
    for architecture in (supernet.space.largest(), supernet.space.smallest()):
        found = top1_percent(count_correct(supernet.extract(architecture), greys().search, **fixed))
        assert found > 60.0  # chance is 25


def test_single_paths_show_the_losses_of_both_ends_of_the_space(tmp_path):
    taught = trainer(tmp_path, epochs=30, num_random=1, ema_decay=0.0)
    space, shown = taught.supernet.space, []
    assert taught.schedule.steps // 20 == 6  # steps between measurements
    taught.begin()
    for step in range(13):
        images, labels = taught._batch(step)
        if step % 6 == 0:
            expected = [
                torch.nn.functional.cross_entropy(
                    taught.supernet.extract(end)(images), labels, label_smoothing=0.1
                ).item()
                for end in (space.largest(), space.smallest())
            ]
        losses = taught.train_step(step)
        assert losses[:2] == pytest.approx(expected, rel=1e-5)
        shown.append(losses)
    assert len({losses[:2] for losses in shown}) == 3
    assert len({losses[2] for losses in shown}) == 13


def test_averaged_weights_are_those_returned_and_none_are_kept_where_it_is_off(tmp_path):
    averaging, plain = trainer(tmp_path / "on"), trainer(tmp_path / "off", ema_decay=0.0)
    averaged = averaging.run()
    assert averaged is not averaging.supernet
    assert not equal(weights(averaged), weights(averaging.supernet))
    assert plain.run() is plain.supernet
    assert equal(weights(plain.supernet), weights(averaging.supernet))
    assert not averaged.training
    assert not plain.supernet.training


def test_averaging_begins_at_the_weights_that_a_start_gives(tmp_path):
    def start(supernet):
        for parameter in supernet.parameters():
            parameter.data.fill_(0.5)

    started = trainer(tmp_path)
    started.start = start
    started.begin()
    assert all(bool((parameter == 0.5).all()) for parameter in started.trained().parameters())


def test_mixup_mixes_labels_and_changes_what_is_learnt(straight, tmp_path):
    mixing = trainer(tmp_path, mixup=1.0)
    _, targets = mixing._batch(0)
    assert targets.shape == (32, 10)
    assert torch.allclose(targets.sum(dim=1), torch.ones(32))
    assert not equal(weights(mixing.run()), straight)


def test_an_odd_batch_is_trained_without_mixup(tmp_path):
    odd = trainer(tmp_path, mixup=1.0, batch_size=33, epochs=1)
    odd.run()
    assert odd._batch(0)[1].shape == (33,)


def test_every_training_image_is_used_once_an_epoch(tmp_path):
    small = trainer(tmp_path, crop_scale=(0.6, 1.0))
    batches = [small._batch(step)[1] for step in range(8)]
    for epoch in (batches[:4], batches[4:]):
        assert torch.equal(torch.cat(epoch).bincount(), torch.from_numpy(few_digits().train.labels.copy()).bincount())
    assert not torch.equal(batches[0], batches[4])


def test_data_smaller_than_a_batch_is_trained_on_whole(tmp_path):
    trainer(tmp_path, batch_size=1000, epochs=2).run()


def test_progress_counts_steps_epochs_and_time(tmp_path):
    seen = []
    trainer(tmp_path, num_random=0).run(seen.append)
    assert [progress.step for progress in seen] == list(range(1, 9))
    assert seen[-1].steps == 8
    assert seen[-1].epoch == 2.0
    assert seen[-1].eta_s == 0.0
    assert seen[0].images_per_second > 0
    assert all(len(progress.losses) == 3 for progress in seen)


def test_the_learning_rate_rises_from_a_hundredth_and_falls_towards_it(tmp_path):
    trained = trainer(tmp_path, epochs=5, warmup_epochs=1, lr=0.01)
    rates = [trained.optimizer.param_groups[0]["lr"]]
    trained.run(lambda _: rates.append(trained.optimizer.param_groups[0]["lr"]))
    assert rates[0] == pytest.approx(0.0001)
    assert np.diff(rates[1:5]) == pytest.approx(0.0099 / 4)  # four steps an epoch
    assert max(np.diff(rates[5:])) < 0
    assert rates[-1] >= 0.0001


def test_a_short_training_does_not_end_at_its_highest_learning_rate(tmp_path):
    trained = trainer(tmp_path, epochs=2, warmup_epochs=2, lr=0.01)
    trained.run()
    assert trained.optimizer.param_groups[0]["lr"] < 0.003


def test_the_recipe_is_checked_before_training():
    with pytest.raises(ValueError, match="epochs"):
        TrainConfig(epochs=-1)


@pytest.mark.parametrize("rule", ["sandwich", "single_path"])
def test_a_training_that_was_killed_logs_the_losses_of_one_that_was_not(tmp_path, rule):
    """They are smoothed over the steps, and single paths show the ends of the space as they were some steps ago."""

    def logged(directory, *stops):
        for until in (*stops, None):
            trainer(directory, rule=rule).run(until=until)
        with (directory / "log.csv").open(newline="") as file:
            return [{**row, "images_per_second": ""} for row in csv.DictReader(file)]

    assert logged(tmp_path / "killed", 3, 4) == logged(tmp_path / "straight")


def test_balanced_weights_are_one_on_average_and_the_same_in_all_for_every_class(tmp_path):
    labels = np.repeat([0, 1, 3], [90, 9, 1])
    weights = balanced_weights(labels, 4)
    assert weights[labels].mean() == pytest.approx(1)
    assert weights[2] == 0
    assert [weights[c] * (labels == c).sum() for c in (0, 1, 3)] == pytest.approx([100 / 3] * 3)
    found = trainer(tmp_path / "a", class_weights="balanced")
    counts = np.bincount(few_digits().train.labels)
    assert (found.step.class_weights.numpy() * counts).tolist() == pytest.approx([12.8] * 10)
    assert trainer(tmp_path / "b").step.class_weights is None
