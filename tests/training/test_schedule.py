import pytest

from nas.arch.backbone import Backbone
from nas.base.errors import TrainingError
from nas.settings.config import TrainConfig
from nas.space.domain import LayerDomain
from nas.space.space import SearchSpace
from nas.training.schedule import LEAST_EPOCHS, LEAST_STEPS, Schedule, guidance_at, learning_rate


def test_an_epoch_is_the_whole_batches_of_the_images():
    schedule = Schedule(TrainConfig(batch_size=32, epochs=3), 100)
    assert (schedule.steps_per_epoch, schedule.epochs, schedule.steps) == (3, 3, 9)


def test_data_smaller_than_a_batch_is_one_step_an_epoch():
    assert Schedule(TrainConfig(batch_size=1000, epochs=2), 128).steps == 2


@pytest.mark.parametrize("num_images", [100, 128 * 40])
def test_without_a_number_of_epochs_there_are_enough_steps(num_images):
    unsaid = Schedule(TrainConfig(batch_size=128), num_images)
    assert unsaid.epochs >= LEAST_EPOCHS
    assert unsaid.steps == unsaid.epochs * unsaid.steps_per_epoch >= LEAST_STEPS
    assert Schedule(TrainConfig(batch_size=128), 128 * 10**6).epochs == LEAST_EPOCHS


def test_no_epoch_is_no_step():
    assert Schedule(TrainConfig(epochs=0), 1000).steps == 0


@pytest.mark.parametrize(
    ("alone", "rates"),
    [
        (True, {8: 2e-3, 48: 2e-3, 96: 1e-3, 192: 5e-4, 384: 2.5e-4}),
        (False, {8: 2e-3, 48: 2e-3, 96: 2e-3, 192: 1e-3, 384: 5e-4}),
    ],
)
def test_wide_networks_learn_at_a_rate_in_inverse_proportion_to_their_width(alone, rates):
    for width, rate in rates.items():
        layer = LayerDomain(num_tokens=(16,), num_heads=(1,), mlp_ratio=(4,) if alone else (2, 4))
        backbone = Backbone(image_size=16, patch_size=4, num_classes=10, head_dim=8)
        widths = (width,) if alone else (width // 2, width)
        space = SearchSpace(name="s", backbone=backbone, embed_dim=widths, depth=(1,), layers=(layer,))
        assert learning_rate(TrainConfig(), space) == pytest.approx(rate)
        assert learning_rate(TrainConfig(lr=3e-3), space) == 3e-3


def test_a_batch_is_shared_out_among_processes_and_subnets():
    config = TrainConfig(batch_size=8, num_random=2)
    Schedule(config, 100).check_batch(2)
    with pytest.raises(TrainingError, match=r"3 processes and the subnets .* at least 9 images"):
        Schedule(config, 100).check_batch(3)
    with pytest.raises(TrainingError, match="at least 6 images"):
        Schedule(config, 5).check_batch(2)


def shares_of(**recipe):
    found = [guidance_at(step / 100, TrainConfig(**recipe)) for step in range(101)]
    return [0.0 if guidance is None else guidance.static for guidance in found]


def test_static_layers_are_dynamic_until_their_maps_are_set_and_then_less_and_less():
    shares = shares_of(static_guidance=0.4)
    assert shares[:21] == [1.0] * 21
    assert shares[30] == pytest.approx(0.5)
    assert shares == sorted(shares, reverse=True)
    assert shares[40:] == [0.0] * 61
    assert shares_of(static_guidance=0.0) == [0.0] * 101


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.99])
def test_static_maps_are_set_once_before_the_first_step_that_they_have_a_part_in(epochs, share):
    config = TrainConfig(batch_size=100, epochs=epochs, static_guidance=share)
    schedule = Schedule(config, 100)
    assert schedule.static_step is not None
    for step in range(schedule.steps):
        guidance = guidance_at(step / schedule.steps, config)
        is_dynamic = guidance is not None and guidance.static == 1
        assert is_dynamic == (step <= schedule.static_step)
    assert schedule.static_step < schedule.steps
    assert Schedule(TrainConfig(static_guidance=0.0), 100).static_step is None


def test_there_is_no_guidance_where_nothing_is_left_of_it():
    assert guidance_at(0.9, TrainConfig()) is None
    assert guidance_at(0.0, TrainConfig(static_guidance=0.0)) is None


@pytest.mark.parametrize(("epochs", "warmup"), [(1, 0.2), (3, 0.6), (9, 1.8), (10, 2.0), (60, 2.0)])
def test_the_warm_up_is_at_most_a_fifth_of_a_training(epochs, warmup):
    assert Schedule(TrainConfig(epochs=epochs), 1000).warmup_epochs == pytest.approx(warmup)
    assert Schedule(TrainConfig(epochs=epochs, warmup_epochs=0), 1000).warmup_epochs == 0


def test_short_trainings_from_a_start_are_told_how_long_would_pay():
    def paying(epochs, images=640):
        return Schedule(TrainConfig(epochs=epochs, batch_size=64), images).paying_epochs

    assert paying(39) == 40
    assert paying(40) is paying(0) is paying(None) is None
    assert paying(399, images=50) == 400
