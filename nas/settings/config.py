"""The knobs of a run, typed and validated: data, training, evaluation, search. Unknown keys are errors."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from nas.base import AGREEMENT, LATENCIES, ConfigError, InputFileError, plural
from nas.settings.document import Document, Problem, Section, check, in_order, keys_named, shown
from nas.settings.own import is_own
from nas.settings.search_section import SearchConfig
from nas.settings.target import target_problems
from nas.settings.tune import TuneConfig, candidate_problems
from nas.settings.yaml_file import apply_settings, read_text, scan_yaml

Precision = Literal["auto", "fp32", "bf16"]
Positive = Annotated[float, Field(gt=0, le=1e30)]
LEAST_ALPHA = 1e-3
MOST_SHOWN = 1000  # characters of a value that differs: paths often differ at their ends
MOST = 1_000_000_000  # of what is counted: no longer a slip of the finger, and no overflow anywhere
Fraction = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(gt=0, le=1)]

SPACE_KEYS = ("name", "backbone", "embed_dim", "stem", "depth", "layers", "overrides", "rules", "constraints", "seeds")
"""Groups of a search space file; `--set` on one of these changes the space, not the run's configuration."""

INNER_SPACE_KEYS = (
    *(f"backbone.{key}" for key in ("family", "timm", "image_size", "patch_size", "in_chans", "num_classes")),
    *(f"backbone.{key}" for key in ("head_dim", "class_token", "reg_tokens", "pool", "final_norm", "norm_pre")),
    *(f"backbone.{key}" for key in ("norm_eps", "act", "key_tokens", "positions")),
    *(f"layers.{key}" for key in ("num_tokens", "reducer", "embed_dim", "attention", "hallucination_ratio")),
    *(f"layers.{key}" for key in ("hallucination", "num_heads", "ffn_rank", "ffn_conv", "mlp_ratio")),
    *(f"rules.{key}" for key in ("max_shared", "max_reductions", "static_after_reduction")),
    *(f"constraints.{key}" for key in ("max_macs", "max_params", "max_memory")),
    *(f"constraints.max_{latency}" for latency in LATENCIES),
)
"""Keys within these groups, for who leaves the group out."""


class DataConfig(Section):
    """Which images, and how they are split."""

    spec: str = Field(
        "digits",
        description="digits | folder:DIR | parquet:PATH | folder or parquet:TRAIN[,VALIDATION],TEST | a timm spec | "
        "images:DIR, without labels",
    )
    search_fraction: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="share of the training images that ranks candidates; null: the data's own validation split ranks "
        "them where it has one beside train and test, else 0.2",
    )
    test_fraction: Fraction = Field(0.2, description="share set aside for testing where the data has no test split")
    image_column: str | None = Field(
        None, description="of a parquet file; a dot leads into a struct; null: image, img, or the only one with images"
    )
    label_column: str | None = Field(
        None,
        description="of a parquet file; a dot leads into a struct; null: label, labels, or what "
        "has class names; of several, the finest",
    )
    split_seed: int | None = Field(
        None,
        ge=0,
        lt=2**32,
        description="of the splits; null: `seed`, or that of the splits of the run whose weights `init` names",
    )
    stored_size: int | None = Field(
        None,
        ge=1,
        description="side of the images that are kept, pixels: training crops them at random, evaluation sees their "
        "centre; null: the space's image_size",
    )
    skip_bad_images: bool = Field(False, description="leave unreadable images out instead of stopping")
    skip_small_classes: bool = Field(
        False, description="leave classes out that have too few images for every split, instead of stopping"
    )

    @property
    def carved_search(self) -> float:
        """Share of the training images that ranks candidates where the data has no split of its own for this."""
        return 0.2 if self.search_fraction is None else self.search_fraction


class TrainConfig(Section):
    """How the supernet is trained, through timm's parts."""

    removed: ClassVar = {
        "conflict_free": False,
        "ffn_branches": 1,
        "images": "split",
        "linear_aux": True,
        "relatives": False,
    }
    former: ClassVar = {
        "lr": 2e-3,
        "static_guidance": 0.2,
        "same_attention": 0.0,
    }  # defaults once, which the names of recipes still leave out

    epochs: int | None = Field(
        None,
        ge=0,
        le=1_000_000,
        description="passes over the training images; null: 60, or as many as make 2,000 steps; "
        "0: none, the weights of `init` as they are",
    )
    batch_size: int = Field(64, ge=1, le=MOST, description="images per step")
    rule: Literal["sandwich", "single_path"] = Field(
        "single_path", description="subnets of a step: largest, smallest and random ones; or random ones alone (SPOS)"
    )
    num_random: int = Field(
        1, ge=0, le=1000, description="random subnets per step; of a sandwich, beside largest and smallest"
    )
    draw: Literal["by_gene", "uniform", "stratified"] = Field(
        "by_gene",
        description="random subnets gene by gene, with a floor for every size, token pattern, operator and plain "
        "layer; or uniformly over the space; or evenly over the MACs range",
    )
    ends: Fraction = Field(
        0.15,
        description="share of single-path steps that train the smallest subnet (two of three) or the largest instead",
    )
    same_attention: Fraction = Field(
        0.3, description="share of random subnets with one kind of attention in all layers that can have it"
    )
    distill: Literal["soft", "none"] = Field(
        "soft",
        description="what subnets learn: the probabilities of the largest's answers, or the teacher's; or labels "
        "instead, as single paths without a teacher always do",
    )
    progressive: Fraction = Field(
        0.0,
        description="share of the training over which operators, tokens, sizes and depth are set free in turn; "
        "0: at once",
    )
    lr: Positive | None = Field(
        None,
        description="peak learning rate of AdamW at this batch size; null: 0.002 up to an `embed_dim` of 96, of a "
        "network alone 48, and beyond that in inverse proportion to the greatest one",
    )
    weight_decay: float = Field(0.05, ge=0, le=1000, description="AdamW's weight decay")
    trainable: Literal["all", "head_and_norms"] = Field(
        "all",
        description="what of a trained start is trained: all; or the classifier, norms, biases and positions, and what "
        "operators have of their own, while the matrices of the ViT stay",
    )
    layer_decay: Share = Field(1.0, description="learning rate of a layer over that of the next one; 1 is off")
    warmup_epochs: float = Field(
        2.0, ge=0, le=1_000_000, description="linear warm-up, epochs; at most a fifth of the training"
    )
    clip_grad: Positive = Field(1.0, description="gradient norm is clipped to this")
    label_smoothing: Fraction = Field(0.1, description="of losses against labels")
    drop_path: Fraction = Field(
        0.0, description="stochastic depth rate of the last layer; of a sandwich, for the largest subnet only"
    )
    mixup: float = Field(0.0, ge=0, le=1000, description="timm Mixup alpha; 0 is off")
    cutmix: float = Field(0.0, ge=0, le=1000, description="timm CutMix alpha; 0 is off")
    hflip: float | None = Field(None, ge=0, le=1, description="flip probability; null: 0.5, and 0 for digits")
    auto_augment: str = Field("", description="timm auto-augment policy, such as rand-m5-n1; empty is off")
    crop_scale: tuple[Share, Share] | None = Field(
        None, description="random resized crop, share of the area; null: 0.6 to 1, and no crop below 16 px"
    )
    ema_decay: float = Field(0.998, ge=0, lt=1, description="weight averaging; 0 is off")
    class_weights: Literal["none", "balanced"] = Field(
        "none",
        description="what an image counts in the losses: 1; or, balanced, in inverse proportion to the images of its "
        "class, 1 on average",
    )
    distill_temperature: Positive = Field(1.0, description="softens teacher and student")
    static_guidance: Fraction = Field(
        0.6,
        description="share of the training in which dynamic maps lead: half of it static layers are dynamic, then "
        "their maps are set to the mean of the dynamic ones and take over; 0 is off",
    )
    checkpoint_minutes: Positive = Field(1.0, description="minutes between checkpoints")

    @field_validator("mixup", "cutmix")
    @classmethod
    def _is_an_alpha(cls, value: float) -> float:
        if 0 < value < LEAST_ALPHA:
            raise ValueError(f"must be 0, or at least {LEAST_ALPHA:g} for NumPy to draw by, got {shown(value)}")
        return value

    @field_validator("crop_scale")
    @classmethod
    def _is_ordered(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and value[0] > value[1]:
            raise ValueError(f"must be [least, most], got {shown(value)}")
        return value


class EvaluateConfig(Section):
    """How candidates are measured."""

    batch_size: int = Field(64, ge=1, le=MOST, description="images per forward pass of the accuracy evaluation")
    max_images: int | None = Field(
        None, ge=1, le=MOST, description="images of the search split that are used; null: all"
    )
    racing: bool = Field(
        True, description="stop showing images to an architecture that is surely dominated on those it saw"
    )
    targets: tuple[str, ...] = Field(
        (),
        description="where latency is measured, such as onnxruntime-cpu:batch=1,threads=1, or profile:FILE; "
        "latency_ms is the first's, the front is measured on the others too; empty: torch on the device",
    )
    latency_batch_size: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="where the target says none; null: 1 from 128 px on, 64 below (batch 1 is noise there)",
    )
    latency_pairs: int = Field(
        6, ge=2, le=10_000, description="interleaved (reference, candidate) pairs during the search"
    )
    final_rounds: Annotated[int, Field(ge=3, le=10_000)] = Field(
        15,
        description="interleaved rounds of the exclusive stage after the search; up to three times as many "
        "for what is not known within 2 %",
    )
    timeout_s: Positive = Field(600.0, le=1e9, description="a candidate that takes longer is recorded as failed")

    @field_validator("targets")
    @classmethod
    def _are_targets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if problems := target_problems(value):
            raise ValueError("; ".join(problems))
        return value


class RunConfig(Section):
    """Everything that decides a run's results. What only decides how long or where it runs is not here."""

    seed: int = Field(0, ge=0, lt=2**32, description="of splits, training and search")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where to train and evaluate")
    precision: Precision = Field("auto", description="bf16 where the device computes in it, else fp32")
    init: str = Field(
        "",
        description="timm:NAME | hf-hub:OWNER/NAME | local-dir:DIR | file:PATH | a run's folder: weights to start "
        "the supernet from; empty: random",
    )
    init_ordered: bool = Field(
        True,
        description="rotate the channels of these weights onto their principal axes, sort heads and neurons, the "
        "most important first, and fit matrices to what is left of their inputs, where the space has narrower networks",
    )
    teacher: str = Field(
        "",
        description="timm:NAME | local-dir:DIR: a trained model of the same classes that teaches every subnet; "
        "empty: the largest subnet of a sandwich teaches, and nobody single paths",
    )
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    search: SearchConfig = SearchConfig()
    tune: TuneConfig = TuneConfig()

    @property
    def seed_of_splits(self) -> int:
        """By which images are split."""
        return self.seed if self.data.split_seed is None else self.data.split_seed

    @property
    def own_names(self) -> list[tuple[str, str]]:
        """What is an object of a Python program: the word of `nas.search` that it is given by, and its name."""
        named = [("data", self.data.spec), ("sampler", self.search.sampler)]
        named += [("targets", text.partition(":")[0]) for text in self.evaluate.targets]
        metrics = [("metrics", name) for name in self.search.own_metrics if name != AGREEMENT.name]
        return [(word, name) for word, name in named if is_own(name)] + metrics

    def with_epochs(self, epochs: int | None) -> "RunConfig":
        """The same with so many epochs of training."""
        return self.model_copy(update={"train": self.train.model_copy(update={"epochs": epochs})})

    @model_validator(mode="after")
    def _has_a_target_for_every_latency(self) -> "RunConfig":
        given = max(1, len(self.evaluate.targets))
        names = list(LATENCIES)[given:]
        if missing := [name for name in self.search.objectives if name in names]:
            targets = f"evaluate.targets has {plural(given, 'target')}"
            raise ValueError(f"search.objectives: {shown(missing)}, but {targets}")
        return self


def split_settings(settings: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Part `--set` settings into those for the search space and those for the configuration (all others)."""
    for_space = [setting for setting in settings if setting.partition("=")[0].strip().partition(".")[0] in SPACE_KEYS]
    return tuple(for_space), tuple(setting for setting in settings if setting not in for_space)


def resolve_config(
    config_file: Path | None = None, settings: Sequence[str] = (), flags: Mapping[str, Any] | None = None
) -> RunConfig:
    """Merge every source of configuration: default < file < setting < flag.

    Args:
        config_file: YAML with the keys of `RunConfig`.
        settings: `section.key=value`; the value is YAML, such as `1e-3` or `[top1, macs]`.
        flags: Values of named options by dotted key, such as `{"train.epochs": 10}`; None means not given.

    Raises:
        ConfigError: Lists every unknown key and wrong value of all sources.
    """
    problems: list[Problem] = []
    document = Document("configuration")
    if config_file is not None:
        try:
            document, problems = scan_yaml(read_text(config_file), str(config_file))
        except InputFileError as error:
            problems = [Problem(0, f"{config_file}: {text}") for text in error.problems]
    document, found = apply_settings(document, settings)
    problems += found
    for path, value in [(tuple(key.split(".")), value) for key, value in (flags or {}).items() if value is not None]:
        try:
            document = document.with_value(path, value, "option")
        except ValueError as error:
            problems.append(document.problem(path, str(error)))
    config, found = check(RunConfig, document, also_known=(*SPACE_KEYS, *INNER_SPACE_KEYS))
    problems += found
    if config is not None:
        wrong = candidate_problems(config.tune, config.train)
        problems += [document.problem(("tune", "parameters", key), text) for key, text in wrong]
    if config is None or problems:
        lines = in_order(problems)
        raise ConfigError(
            f"{document.source}: {plural(len(lines), 'problem')}\n" + "\n".join(f"  {line}" for line in lines),
            hint="config.yaml in the folder of any run has every key",
        )
    return config


def config_differences(run: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """Where two configurations (plain values) differ, such as `train.epochs: 30 in the run, 10 asked`."""

    def said(flat: Mapping[str, Any], key: str) -> str:
        return "absent" if key not in flat else "null" if flat[key] is None else shown(flat[key], MOST_SHOWN)

    one, other = flat_config(run), flat_config(asked)
    return [
        f"{key}: {said(one, key)} in the run, {said(other, key)} asked"
        for key in dict.fromkeys([*one, *other])
        if key not in one or key not in other or one[key] != other[key]
    ]


def flat_config(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A configuration's plain values by dotted key, such as `train.epochs`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flat_config(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


def keys_for(word: str) -> list[str]:
    """Dotted keys of configuration and space that a word, well spelt, stands for, such as `train.lr` for `lr`."""
    keys = [*flat_config(RunConfig().model_dump()), "embed_dim", "stem", "depth", *INNER_SPACE_KEYS]
    return keys_named(word, keys, cutoff=1)
