import pytest
import torch
from small_runs import few_digits, one_thread

from nas.model.layers.feed_forward import svd_factors
from nas.model.layers.maps import Guidance
from nas.model.supernet import Supernet
from nas.settings.config import TrainConfig
from nas.space.space import parse_space
from nas.training.operators.factors import set_factors
from nas.training.trainer import SupernetTrainer
from nas.training.world import World

COMPACT = """
name: compact
backbone: {image_size: 8, patch_size: 2, num_classes: 10, head_dim: 8}
embed_dim: 16
depth: 2
layers: {num_heads: 2, mlp_ratio: 2, ffn_rank: 0.25}
"""
FACTORS = ("mlp.down.weight", "mlp.up.weight")


@pytest.fixture(autouse=True)
def _single_threaded():
    with one_thread():
        yield


def trainer(directory, text: str = COMPACT, ema_decay: float = 0.998, **options) -> SupernetTrainer:
    """Eight steps; full matrices in the first four."""
    recipe = {
        "epochs": 2,
        "batch_size": 32,
        "lr": 1e-2,
        "warmup_epochs": 0,
        "full_rank": 0.5,
        "ema_decay": ema_decay,
        "checkpoint_minutes": 1e-9,
    }
    return SupernetTrainer(
        Supernet(parse_space(text, "compact.yaml")),
        few_digits().train,
        TrainConfig(**recipe),
        seed=0,
        device=torch.device("cpu"),
        precision="fp32",
        directory=directory,
        **options,
    )


def stored(supernet) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in supernet.named_parameters()}


def test_factors_are_the_truncated_decomposition_of_the_full_matrix():
    supernet = Supernet(parse_space(COMPACT.replace("0.25", "[0.25, 0.5, 1]"), "compact.yaml"))
    before = stored(supernet)
    names = set_factors(dict(supernet.named_parameters()), World())
    assert set(names) == {f"blocks.{i}.{factor}" for i in range(2) for factor in FACTORS}
    after = stored(supernet)
    assert all(torch.equal(after[name], before[name]) for name in before if name not in names)
    down, up = svd_factors(before["blocks.1.mlp.fc2.weight"], 8)
    assert torch.equal(after["blocks.1.mlp.down.weight"], down)
    assert torch.equal(after["blocks.1.mlp.up.weight"], up)


def test_a_network_whose_matrices_have_the_rank_does_not_change_when_they_are_factorised():
    supernet = Supernet(parse_space(COMPACT, "compact.yaml")).eval()
    architecture, images = supernet.space.largest(), few_digits().train.normalized(slice(0, 8))
    with torch.no_grad():
        for i in range(2):
            weight = supernet.get_parameter(f"blocks.{i}.mlp.fc2.weight")
            weight.copy_(torch.randn(16, 4) @ torch.randn(4, 32))
        full = supernet(images, architecture, guidance=Guidance(full_rank=True))
        assert not torch.allclose(supernet(images, architecture), full, atol=0.1)
        set_factors(dict(supernet.named_parameters()), World())
        assert torch.allclose(supernet(images, architecture), full, atol=1e-4)


def test_full_matrices_are_trained_first_and_then_their_factors_alone(tmp_path):
    training = trainer(tmp_path)
    names = [name for name, _ in training.supernet.named_parameters() if ".mlp." in name and "weight" in name]
    full = [name for name in names if "fc2" in name]
    factors = [name for name in names if name.endswith(FACTORS)]
    course = [stored(training.supernet)]
    training.begin()
    for step in range(8):
        training.train_step(step)
        course.append(stored(training.supernet))

    def changed(chosen, *steps):
        return [not torch.equal(course[step][name], course[step + 1][name]) for name in chosen for step in steps]

    assert all(changed(full, 0, 1, 2, 3))
    assert not any(changed(factors, 0, 1, 2, 3))
    assert not any(changed(full, 4, 5, 6, 7))
    assert all(changed(factors, 4, 5, 6, 7))
    product = course[5]["blocks.0.mlp.up.weight"] @ course[5]["blocks.0.mlp.down.weight"]
    down, up = svd_factors(course[4]["blocks.0.mlp.fc2.weight"], 4)
    assert torch.cosine_similarity(product.flatten(), (up @ down).flatten(), dim=0) > 0.8
    averaged = training.trained().get_parameter("blocks.0.mlp.up.weight")
    assert torch.cosine_similarity(averaged.flatten(), up.flatten(), dim=0) > 0.5


@pytest.mark.parametrize(("until", "ema_decay"), [(2, 0.0), (2, 0.9), (4, 0.9)])
def test_what_is_evaluated_before_they_are_set_has_factors_too_and_goes_on_as_if_it_had_not(tmp_path, until, ema_decay):
    """As rungs of several supernets are."""
    stopped = trainer(tmp_path / "parts", ema_decay=ema_decay)
    supernet = stopped.run(until=until)
    down, _ = svd_factors(supernet.get_parameter("blocks.0.mlp.fc2.weight"), 4)
    assert torch.equal(supernet.get_parameter("blocks.0.mlp.down.weight"), down)
    whole = trainer(tmp_path / "whole", ema_decay=ema_decay).run().state_dict()
    resumed = trainer(tmp_path / "parts", ema_decay=ema_decay).run().state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize("until", [3, 4, 5])
def test_resuming_is_exact_around_the_step_at_which_factors_are_set(tmp_path, until):
    whole = trainer(tmp_path / "whole").run().state_dict()
    trainer(tmp_path / "parts").run(until=until)
    resumed = trainer(tmp_path / "parts").run().state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_factors_that_are_given_are_kept_and_trained_from_the_first_step(tmp_path):
    given = {}

    def start(supernet):
        given.update(stored(supernet))

    first = trainer(tmp_path, start=start)
    assert first.begin() == 0
    for training in (first, trainer(tmp_path, is_started=True)):
        assert training.schedule.factor_step is None
        assert training.resume() == 0
        training.train_step(0)
        for i in range(2):
            down = f"blocks.{i}.mlp.down.weight"
            assert not torch.equal(training.supernet.get_parameter(down), given[down])
            assert torch.allclose(training.supernet.get_parameter(down), given[down], atol=0.011)  # one step of AdamW


def test_nothing_is_set_where_no_feed_forward_is_compact(tmp_path):
    plain = trainer(tmp_path, COMPACT.replace("0.25", "1"))
    before = stored(plain.supernet)
    plain._set_factors()
    assert all(torch.equal(value, before[name]) for name, value in plain.supernet.named_parameters())
