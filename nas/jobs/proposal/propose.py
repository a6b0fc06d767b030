"""`init`: looks at images and device, and writes a space and a configuration that say why they are as they are."""

import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.arch import cost
from nas.base import (
    NAME,
    ConfigError,
    NasError,
    Reporter,
    check_writable,
    command_line,
    plural,
    temporary_folder,
    writing,
)
from nas.data import IMBALANCED, ImageData, load_images, sizes_of_some
from nas.jobs.dry_run.forecast import forecast
from nas.jobs.proposal.design import Design, Images, comment, design_for
from nas.jobs.session import Budget, start
from nas.latency import device_name, resolve_device
from nas.settings import Document, RunConfig, apply_settings, dump_yaml, resolve_config, shown
from nas.space import SearchSpace, parse_space
from nas.training import Schedule

TRIALS = 200
LIKELY_TOP1 = 80.0  # percent, at which an error of top-1 is said before one is known
WANTED_ERROR = 1.0  # points; a larger standard error is warned of
LEAST_OF_A_CLASS = 20  # training images, likewise
LONG_S = 12 * 3600
MACS_OF_A_CORE = 3e10
"""A second of training, fp32: plain steps of a 111 MMACs ViT, one thread (results/reference/train_speed.csv)."""
PASSES = 3  # forward, and twice as much backward


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Where a proposal goes: the space and the configuration."""

    space: Path
    config: Path

    @property
    def name(self) -> str:
        """Of the space."""
        return _name(self.space.stem)

    @classmethod
    def at(cls, to: Path | None, spec: str) -> "Files":
        """`X.yaml` and `X.config.yaml`: in a folder, under the name of the data; or those of a file's name.

        Raises:
            ConfigError: One of them is there: nothing is ever overwritten.
            DiskError: They cannot be written.
        """
        is_file = to is not None and to.suffix in (".yaml", ".yml") and not to.is_dir()
        file = to if to and is_file else (to or Path()) / f"{_name(Path(re.split('[:,]', spec)[-1]).stem)}.yaml"
        files = cls(space=file, config=file.with_suffix(f".config{file.suffix}"))
        for path in (files.space, files.config):
            if path.exists():
                raise ConfigError(f"{path} is there already, and nothing is overwritten", hint="--to FILE.yaml or DIR")
        check_writable(files.space)
        return files


def propose(
    spec: str,
    to: Path | None,
    settings: Sequence[str],
    reporter: Reporter,
    *,
    from_scratch: bool = False,
    with_forecast: bool = False,
) -> dict[str, Any]:
    """Write a space and a configuration for the images of a data spec; returns what `init --format json` prints.

    `settings` are `section.key=value` of the configuration; they stand in the file as they are given. The images are
    decoded as a run does, which finds them decoded.

    Raises:
        ConfigError: A setting is wrong, or a file is there already.
        DataError: The images cannot be used; says all that is wrong with them.
        DiskError: A file cannot be written.
    """
    given = resolve_config(None, settings, {"data.spec": spec})
    device = resolve_device(given.device)
    sizes, count = sizes_of_some(given.data)
    files = Files.at(to, spec)
    side = int(np.median([min(size) for size in sizes])) if sizes else 32
    images = Images(side=side, num_images=count, on_cuda=device.type == "cuda")
    design = design_for(images, from_scratch=from_scratch)
    if given.init:
        design = replace(design, init=given.init, why={**design.why, "init": "as it was asked for"})
    data, test = load_images(given.data, design.image_size, given.seed_of_splits, reporter)
    for line in data.summary:
        label, _, text = line.partition("  ")
        reporter.line(label, text.strip())
    document, _ = apply_settings(Document("settings"), settings)
    space = parse_space(design.text(files.name, ""), str(files.space)).with_num_classes(data.info.num_classes)
    proposal = _Proposal(design=design, given=given, document=document.data, data=data, space=space, files=files)
    values = proposal.values()
    values["images"] |= {"test": len(test.entries) if test else 0, "shorter_side": side}
    values["device"] = device_name(device.type)
    values["forecast"] = _forecast(proposal, reporter) if with_forecast else None
    if values["forecast"] and values["forecast"]["total_s"] > LONG_S:
        values["warnings"].append(
            "this takes more than half a day here: without train.epochs, --minutes M plans all of it for M minutes"
        )
    for path, text in ((files.space, proposal.space_text()), (files.config, proposal.config_text())):
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    return values


@dataclass(frozen=True, slots=True, kw_only=True)
class _Proposal:
    """What is known when the images are read."""

    design: Design
    given: RunConfig
    document: Mapping[str, Any]  # the configuration's keys that were given, nested
    data: ImageData
    space: SearchSpace
    files: Files

    @property
    def command(self) -> str:
        words = "run", self.files.space, "--config", self.files.config, "--trials", self.trials
        return command_line(*words)

    @property
    def schedule(self) -> Schedule:
        return Schedule(self.given.train, len(self.data.train))

    @property
    def trials(self) -> int:
        return min(TRIALS, self.space.size())

    @property
    def per_class(self) -> NDArray[np.int64]:
        """Training images of each class."""
        return np.bincount(self.data.train.labels, minlength=self.data.info.num_classes)

    @property
    def is_imbalanced(self) -> bool:
        return bool(self.per_class.max() > IMBALANCED * max(1, self.per_class.min()))

    @property
    def error(self) -> float:
        """Standard error of a likely top-1 on the search split, points."""
        return math.sqrt(LIKELY_TOP1 * (100 - LIKELY_TOP1) / len(self.data.search))

    def settings(self) -> dict[str, tuple[Any, str]]:
        """What the configuration says beside what was given, by key: the value, and why."""
        schedule, batch = self.schedule, self.given.train.batch_size
        steps = f"{schedule.epochs} epochs are {schedule.steps:,} steps of {batch} images"
        chosen: dict[str, tuple[Any, str]] = {
            "train.epochs": (
                schedule.epochs,
                f"60, or as many as make 2,000 steps: {steps}; with --minutes as many as fit",
            )
        }
        if self.design.init:
            chosen["init"] = (self.design.init, self.design.why["init"])
        if self.is_imbalanced:
            why = f"a class has {self.per_class.min():,} to {self.per_class.max():,} images, so all classes count alike"
            chosen["train.class_weights"] = ("balanced", why)
            chosen["search.objectives"] = (["balanced_top1", "macs", "latency_ms"], why)
        return {key: pair for key, pair in chosen.items() if not _has(self.document, key)}

    def choices(self) -> list[dict[str, Any]]:
        """Everything that was chosen, and why: `choice`, `value`, `why`."""
        design, space, why = self.design, self.space, self.design.why
        deep = f"{min(space.depth)} to {max(space.depth)} layers"
        rows = [
            ("space", design.base, "the shipped space that this one is made of"),
            ("image size", f"{design.image_size} px", why["image_size"]),
            ("patch size", f"{design.patch_size} px", why["patch_size"]),
            ("width, depth", f"{min(space.embed_dim)} to {max(space.embed_dim)}, {deep}", why["embed_dim"]),
            ("start", design.init or "random weights", why["init"]),
            *((key, shown(value), reason) for key, (value, reason) in self.settings().items() if key != "init"),
            (
                "trials",
                f"{self.trials:,}",
                "of the digits, CIFAR-10 and Fashion-MNIST 50 to 115 found what 2,000 draws did",
            ),
        ]
        return [dict(zip(("choice", "value", "why"), row, strict=True)) for row in rows]

    def warnings(self) -> list[str]:
        """What the images cannot do."""
        found, number, least = [], len(self.data.search), int(self.per_class.min())
        if self.error > WANTED_ERROR:
            needed = math.ceil(LIKELY_TOP1 * (100 - LIKELY_TOP1) / WANTED_ERROR**2)
            found.append(
                f"{number:,} search images: at {LIKELY_TOP1:g} % the standard error of top-1 is {self.error:.1f} "
                f"points, and networks that differ by less cannot be told apart; {needed:,} images bring it to "
                f"{WANTED_ERROR:g} point"
            )
        if least < LEAST_OF_A_CLASS:
            name = self.data.info.class_names[int(self.per_class.argmin())]
            found.append(f"the class {name} has {plural(least, 'training image')}: hardly enough to learn it")
        return found

    def work(self) -> tuple[float, str]:
        """Multiply-accumulates of the training, and a rough rule for its time."""
        space, rng = self.space, np.random.default_rng(0)
        mean = float(np.mean([cost.macs(space.sample_by_gene(rng), space.backbone) for _ in range(64)]))
        macs = PASSES * mean * self.schedule.steps * self.given.train.batch_size
        return macs, (
            f"of training, by a rough rule: {macs / 1e12:.3g} TMACs ({PASSES} x {mean / 1e6:.3g} M of the mean network "
            f"x images seen) at {MACS_OF_A_CORE / 1e9:g} GMACs a second, as a core in fp32 does in "
            "results/reference/train_speed.csv; --dry-run rehearses all of it"
        )

    def values(self) -> dict[str, Any]:
        """What `init --format json` prints, but for the forecast."""
        space, labels = self.space, self.per_class
        macs, rule = self.work()
        return {
            "schema_version": 1,
            "space_file": str(self.files.space),
            "config_file": str(self.files.config),
            "command": self.command,
            "images": {
                "train": len(self.data.train),
                "search": len(self.data.search),
                "classes": self.data.info.num_classes,
                "of_a_class": [int(labels.min()), int(labels.max())],
            },
            "architectures": space.size(),
            "macs": list(space.macs_range()),
            "params": list(space.params_range()),
            "training_macs": macs,
            "training_core_s": macs / MACS_OF_A_CORE,
            "rule": rule,
            "choices": self.choices(),
            "warnings": self.warnings(),
        }

    def space_text(self) -> str:
        """The space's file."""
        space, spec, classes = self.space, self.given.data.spec, self.data.info.num_classes
        ranges = space.macs_range(), space.params_range()
        macs, params = (" to ".join(f"{number / 1e6:.3g} M" for number in ends) for ends in ranges)
        start = self.design.init or "random weights"
        lines = [
            f"For {spec}, {classes} classes: made of `{self.design.base}` by `{NAME} init`, and yours to change.",
            *(f"{key}: {f'{start}, ' * (key == 'init')}{text}." for key, text in self.design.why.items()),
            f"architectures: {space.size():.3g}   MACs: {macs}   parameters: {params}   (with these classes)",
            f"`{NAME} check {self.files.space}` says what a change amounts to.",
        ]
        return self.design.text(self.files.name, "\n".join(lines))

    def config_text(self) -> str:
        """The configuration's file."""
        groups: dict[str, Any] = {"data": {"spec": self.given.data.spec}}
        comments: dict[str, str] = {}
        for section, value in self.document.items():
            groups[section] = {**groups.get(section, {}), **value} if isinstance(value, dict) else value
        for key, (value, why) in self.settings().items():
            section, _, name = key.partition(".")
            comments[key] = why
            if name:
                groups.setdefault(section, {})[name] = value
            else:
                groups[section] = value
        lines = [
            *comment(f"`{self.command}`"),
            *comment("Relative paths start where the command is typed. A run's config.yaml has every key."),
        ]
        for section, value in groups.items():
            if not isinstance(value, dict):
                lines += [*comment(comments.get(section, "")), dump_yaml({section: value}).rstrip()]
                continue
            lines.append(f"{section}:")
            for name, inner in value.items():
                key = f"{section}.{name}"
                mark = "# " if key == "train.epochs" and not _has(self.document, key) else ""  # --minutes may plan them
                lines += comment(comments.get(key, ""), "  ")
                lines += [f"  {mark}{line}" for line in dump_yaml({name: inner}).splitlines()]
        return "\n".join(lines) + "\n"


def _name(text: str) -> str:
    """A text as the name of a space."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_") or "images"


def _has(document: Mapping[str, Any], key: str) -> bool:
    value: Any = document
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return False
        value = value[part]
    return True


def _forecast(proposal: _Proposal, reporter: Reporter) -> dict[str, Any] | None:
    """What the command will need, as `run --dry-run` says it; None where it cannot be rehearsed, which is told."""
    started, workers = time.perf_counter(), len(os.sched_getaffinity(0))
    with temporary_folder("proposal") as scratch:
        space, config = (scratch / path.name for path in (proposal.files.space, proposal.files.config))
        space.write_text(proposal.space_text(), encoding="utf-8")
        config.write_text(proposal.config_text(), encoding="utf-8")
        try:
            session = start(space, (), resolve_config(config), None, Reporter(quiet=True), scratch=scratch / "new")
            session = replace(session, reporter=reporter)
            budget = Budget(trials=proposal.trials, minutes=None, workers=workers, finalists=None)
            start_s = time.perf_counter() - started
            return forecast(session, budget, scratch=scratch / "rehearsal", start_s=start_s)
        except NasError as error:
            reporter.line("forecast", f"not possible: {error.message}")
            return None
