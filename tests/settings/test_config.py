"""Where a run's configuration comes from, and how a wrong one is refused."""

import re

import pytest

from nas.base.errors import ConfigError
from nas.settings.config import RunConfig, TrainConfig, config_differences, keys_for, resolve_config, split_settings
from nas.settings.yaml_file import dump_yaml


def write(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


class TestResolving:
    def test_nothing_given_is_the_defaults(self):
        assert resolve_config() == RunConfig()

    def test_flag_beats_setting_beats_file_beats_default(self, tmp_path):
        file = write(tmp_path, "seed: 1\ntrain: {epochs: 1, lr: 1e-2, batch_size: 8}\n")
        config = resolve_config(file, ["train.epochs=2", "train.lr=2e-3"], {"train.epochs": 3})
        assert (config.train.epochs, config.train.lr, config.train.batch_size, config.seed) == (3, 0.002, 8, 1)
        assert config.train.num_random == RunConfig().train.num_random

    def test_flag_that_is_not_given_changes_nothing(self):
        assert resolve_config(settings=["seed=4"], flags={"seed": None}).seed == 4

    def test_later_setting_wins(self):
        assert resolve_config(settings=["seed=4", "seed=5"]).seed == 5

    def test_settings_are_yaml(self):
        settings = [
            "search.objectives=[top1, macs]",
            "train.crop_scale=[5e-1, 1]",
            "evaluate.max_images=null",
            "data.skip_bad_images=true",
            "data.spec=folder:/some where/x=y",
            "init=",
        ]
        config = resolve_config(settings=settings)
        assert config.search.objectives == ("top1", "macs")
        assert config.train.crop_scale == (0.5, 1.0)
        assert config.evaluate.max_images is None
        assert config.data.skip_bad_images is True
        assert config.data.spec == "folder:/some where/x=y"
        assert config.init == ""

    def test_file_of_comments_is_the_defaults(self, tmp_path):
        assert resolve_config(write(tmp_path, "# seed: 3\ntrain:\n#  epochs: 3\n")) == RunConfig()

    def test_saved_configuration_reads_back_equal(self, tmp_path):
        config = resolve_config(settings=["train.lr=1.25e-5", "init=timm:on", "search.objectives=[top1, params]"])
        assert resolve_config(write(tmp_path, dump_yaml(config.model_dump(mode="json")))) == config


class TestRefusing:
    def test_all_problems_of_all_sources_at_once(self, tmp_path):
        file = write(tmp_path, "sed: 3\ntrain:\n  epoch: 3\n  lr: 0\n  lr: 1\nsearch: {sampler: nsga}\nepochs: 2\n")
        settings = ["train.clip_grad=high", "evaluate", "seed.x=1", "constraint.max_macs=3"]
        with pytest.raises(ConfigError) as caught:
            resolve_config(file, settings, {"evaluate.batch_size": 0, "seed": -1})
        assert caught.value.message.splitlines() == [
            f"{file}: 11 problems",
            '  line 1: sed: unknown key; did you mean "seed"?',
            '  line 3: train.epoch: unknown key; did you mean "epochs"?',
            "  line 4: train.lr: must be more than 0, got 0",
            "  line 5: train.lr: key is given twice, first in line 4",
            "  line 6: search.sampler: 'nsga' is not one of predictor, nsga2, nsga3, tpe, gp, evolution, random; "
            'did you mean "nsga3"?',
            '  line 7: epochs: unknown key here; did you mean "train.epochs"?',
            "  --set evaluate: must look like section.key=value",
            "  option seed: must be at least 0, got -1",
            "  --set train.clip_grad: must be a number, got 'high'",
            "  option evaluate.batch_size: must be at least 1, got 0",
            '  --set constraint: unknown key; did you mean "constraints"?',
        ]
        assert "config.yaml" in caught.value.hint

    def test_missing_file_is_told_beside_wrong_settings(self, tmp_path):
        with pytest.raises(ConfigError) as caught:
            resolve_config(tmp_path / "none.yaml", ["seed=x"])
        assert caught.value.message.splitlines()[1:] == [
            f"  {tmp_path / 'none.yaml'}: there is no such file",
            "  --set seed: must be a whole number, got 'x'",
        ]

    @pytest.mark.parametrize(
        ("setting", "problem"),
        [
            ("train.epochs=true", "train.epochs: must not be true or false, got true"),
            ("train.lr=.nan", "train.lr: must be a finite number, got nan"),
            ("train.cutmix=5e-324", "train.cutmix: must be 0, or at least 0.001 for NumPy to draw by, got 5e-324"),
            ("train.epochs=1e12", "train.epochs: must be at most 1e+06, got 1000000000000.0"),
            ("train.lr=1e300", "train.lr: must be at most 1e+30, got 1e+300"),
            ("seed=4294967296", "seed: must be less than 4.29497e+09, got 4294967296"),
            ("train.crop_scale=[1, 0.5]", "train.crop_scale: must be [least, most], got [1.0, 0.5]"),
            ("train.crop_scale=[0.5, 2]", "train.crop_scale[1]: must be at most 1, got 2"),
            ("search.objectives=[]", "search.objectives: needs at least one item, got []"),
            ("search.objectives=[top1, top1]", "search.objectives: names a metric twice: ['top1', 'top1']"),
            ("search.objectives=top1", "search.objectives: must be a list, such as [a, b], got 'top1'"),
            ("device=gpu", "device: 'gpu' is not one of auto, cpu, cuda"),
            (
                "evaluate.targets=[torch-cpu, torch-cpu-packed, torch-cpu:batch=2, torch-cpu:batch=3, onnxruntime-cpu]",
                "evaluate.targets: 5 targets, there can be 4",
            ),
        ],
    )
    def test_wrong_value_is_named_with_its_rule(self, setting, problem):
        with pytest.raises(ConfigError) as caught:
            resolve_config(settings=[setting])
        assert caught.value.message == f"configuration: 1 problem\n  --set {problem}"

    def test_an_option_that_is_gone_is_passed_over_at_its_default_and_refused_otherwise(self, tmp_path):
        file = tmp_path / "a.yaml"
        file.write_text("train:\n  relatives: false\n  images: split\n  ffn_branches: 1\n  conflict_free: false\n")
        assert resolve_config(file) == RunConfig()
        file.write_text("train:\n  conflict_free: true\n  epochs: x\n")
        with pytest.raises(ConfigError) as caught:
            resolve_config(file, ["train.images=whole"])
        assert caught.value.message == "\n".join(
            [
                f"{file}: 3 problems",
                "  line 2: train.conflict_free: this option was removed; only its default, false, is still read",
                "  line 3: train.epochs: must be a whole number, got 'x'",
                "  --set train.images: this option was removed; only its default, 'split', is still read",
            ]
        )

    def test_a_latency_to_optimise_needs_its_target(self):
        with pytest.raises(ConfigError, match=r"\['latency_ms_2'\], but evaluate.targets has 1 target"):
            resolve_config(settings=["search.objectives=[top1, latency_ms, latency_ms_2]"])
        two = "evaluate.targets=[torch-cpu, onnxruntime-cpu]"
        assert resolve_config(settings=["search.objectives=[top1, latency_ms_2]", two]).search.objectives == (
            "top1",
            "latency_ms_2",
        )


class TestSplitting:
    def test_settings_of_the_space_are_parted_from_the_configuration(self):
        given = ["constraints.max_latency_ms=8", "train.epochs=3", "embed_dim=[48]", "nonsense", "layers.num_heads=2"]
        assert split_settings(given) == (
            ("constraints.max_latency_ms=8", "embed_dim=[48]", "layers.num_heads=2"),
            ("train.epochs=3", "nonsense"),
        )

    def test_no_key_belongs_to_both(self):
        assert split_settings([f"{key}=1" for key in RunConfig.model_fields])[0] == ()


class TestComparing:
    def test_equal_configurations_do_not_differ(self):
        config = resolve_config(settings=["train.warmup_epochs=2"])
        assert config_differences(config.model_dump(), RunConfig().model_dump(mode="json")) == []

    def test_every_difference_is_told_with_both_values(self):
        run = RunConfig(train=TrainConfig(lr=2e-3)).model_dump(mode="json")
        asked = resolve_config(
            settings=[
                "train.epochs=10",
                "evaluate.max_images=5",
                "search.objectives=[top1, macs]",
                "train.lr=2.00000001e-3",
            ]
        ).model_dump()
        assert config_differences(run, asked) == [
            "train.epochs: null in the run, 10 asked",
            "train.lr: 0.002 in the run, 0.00200000001 asked",
            "evaluate.max_images: null in the run, 5 asked",
            "search.objectives: ['top1', 'macs', 'latency_ms'] in the run, ['top1', 'macs'] asked",
        ]

    def test_key_of_another_version_is_absent(self):
        run, asked = {"seed": 0, "old": {"key": 1}}, {"seed": 0, "new": 2}
        assert config_differences(run, asked) == [
            "old.key: 1 in the run, absent asked",
            "new: absent in the run, 2 asked",
        ]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("train.learning_rate=1", 'train.learning_rate: unknown key; did you mean "lr"?'),
        ("learning_rate=1", 'learning_rate: unknown key here; did you mean "train.lr"?'),
        ("batch_size=1", 'unknown key here; did you mean "train.batch_size" or "evaluate.batch_size"?'),
        ("weight_decya=1", 'unknown key here; did you mean "train.weight_decay"?'),
        ("max_macs=1", 'unknown key here; did you mean "constraints.max_macs"?'),
        ("heads=1", 'unknown key here; did you mean "layers.num_heads"?'),
        ("trials=1", "no key, but an option: --trials"),
        ("num_workers=1", "no key, but an option: --workers"),
        ("optimizer=sgd", "unknown key; known here: seed, device, precision"),
        ("search.metrics=[top1]", 'did you mean "objectives"?'),
        ("evaluate.targets=[tensorrt]", "unknown runtime 'tensorrt'"),
    ],
)
def test_what_is_called_otherwise_elsewhere_is_found(setting, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        resolve_config(settings=[setting])


def test_a_word_leads_to_the_keys_that_it_may_mean():
    assert keys_for("lr") == keys_for("learning_rate") == ["train.lr"]
    assert keys_for("batch_size") == ["train.batch_size", "evaluate.batch_size"]
    assert keys_for("width") == ["embed_dim", "layers.embed_dim"]
    assert keys_for("foo") == keys_for("epoch") == []
