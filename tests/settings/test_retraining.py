"""What `retrain` may be asked for."""

import pytest

from nas.base.errors import ConfigError
from nas.settings.retraining import RIVALS, check_retraining


def test_retrain_takes_settings_of_the_recipe_and_leads_to_them():
    check_retraining(1, ["train.lr=1e-3"])
    with pytest.raises(ConfigError, match="--set learning_rate=1e-3: unknown key") as caught:
        check_retraining(1, ["learning_rate=1e-3"])
    assert caught.value.hint == "--set train.lr=1e-3"
    with pytest.raises(ConfigError, match="retrain takes data, space and evaluation from the run"):
        check_retraining(1, ["embed_dim=3"])


def test_baselines_are_named_models_of_timm_or_none_at_all():
    for name in RIVALS:
        check_retraining(1, (), [name.replace("NAME", "resnet18")])
    check_retraining(1, (), ["plain", "timm:resnet18", "timm:resnet18.a1_in1k"])
    for names in (["timm"], ["resnet18"], ["timm:"], ["timm:NAME"], ["none", "plain"], ["Plain"]):
        with pytest.raises(ConfigError):
            check_retraining(1, (), names)
    with pytest.raises(ConfigError) as caught:
        check_retraining(1, (), ["resnet18"])
    assert caught.value.hint == "timm:resnet18, if it is a model of timm"
