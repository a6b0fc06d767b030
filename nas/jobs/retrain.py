"""What `retrain` compares an architecture with, and its numbers in words."""

import math
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from nas.arch import Architecture, cost
from nas.base import MACS, NAME, SCHEMA_VERSION, ConfigError, NoResultError, Reporter, accuracy_of, command_line
from nas.bundle import RETRAIN, BundleOptions, check_place
from nas.evaluation import balanced_percent, top1_percent
from nas.jobs.alone import StandAloneSetup, trained_network
from nas.jobs.alone_records import inherited_setup, stand_alone_setup, trained_alone, untrained
from nas.jobs.export import export_measured, open_pick, provenance, run_facts, table_row
from nas.jobs.measures import evaluator_setup
from nas.jobs.session import Session
from nas.jobs.trust import inherited_accuracy
from nas.latency import torch_threads
from nas.model import Subnet
from nas.runs import CONFIG, FrontPoint, RunDirectory, network_row, points_of
from nas.settings import NO_OWN, Own, check_retraining, resolve_config
from nas.space import SearchSpace, is_plain, known_designs
from nas.training import Teacher, check_policy, load_trained, weights_digest

PICKED = "picked"
EQUAL = "plain ViT of equal cost"


def baseline_of(space: SearchSpace, picked: Architecture, measured: Iterable[FrontPoint]) -> tuple[str, Architecture]:
    """What an architecture is compared with, and its name.

    The plain ViT of at most as many MACs that has the best accuracy of those in `measured`; where there is none, the
    largest plain ViT of the space, else its largest architecture.
    """
    most = cost.macs(picked, space.backbone)
    rivals = [
        point
        for point in measured
        if is_plain(point.architecture)
        and point.architecture != picked
        and point.value(MACS) <= most
        and point.architecture in space
    ]
    if rivals := [point for point in rivals if not math.isnan(point.accuracy)]:
        best = max(rivals, key=lambda point: (point.accuracy, -point.value(MACS), point.digest))
        return EQUAL, best.architecture
    (plain,) = known_designs(space, ["deit"]).values()
    return ("plain ViT", plain) if is_plain(plain) else ("largest", space.largest())


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is trained, and how.

    Attributes:
        start: `scratch`, random weights; `inherited`, those of the trained supernet.
        seeds: Trainings of each architecture.
        epochs: Of a training; None: as many as the supernet had.
        teacher: A trained model that teaches; None: what the run had.
        settings: `train.KEY=VALUE` on top of the run's recipe.
        with_whole: Whether the largest network of the space is trained, too, so that it is known what its cuts cost.
    """

    pick: str
    start: Literal["scratch", "inherited"] = "scratch"
    seeds: int = 1
    epochs: int | None = None
    teacher: str | None = None
    settings: tuple[str, ...] = ()
    with_baseline: bool = True
    with_whole: bool = False

    def command(self, run: Path, digest: str, directory: Path) -> str:
        """The command line that makes the bundle again."""
        words = ["retrain", str(run), "--pick", digest, "--from", self.start, "--seeds", str(self.seeds)]
        words += [] if self.epochs is None else ["--epochs", str(self.epochs)]
        words += [] if self.teacher is None else ["--teacher", self.teacher]
        words += [word for setting in self.settings for word in ("--set", setting)]
        words += [] if self.with_baseline else ["--no-baseline"]
        words += ["--whole"] if self.with_whole else []
        return shlex.join([NAME, *words, "--to", str(directory)])


def retrain(
    path: Path,
    request: Request,
    reporter: Reporter,
    *,
    workers: int,
    directory: Path | None = None,
    data: str | None = None,
    own: Own = NO_OWN,
) -> dict[str, Any]:
    """Train an architecture of a run's front alone, then open the test split; writes `retrain/<digest>.json`.

    Where the teacher of the run is gone, and the request names none, networks learn from the labels, and that is said.
    Every finished training is kept with its weights and never done again, whatever is asked next. No training sees
    the search split; the test split is opened when all have ended.
    With 0 workers all is done in this process; else Ray does so many trainings at a time. The network that is best on
    the search split is written into `directory` as a bundle, where one is given. `data` says where the images are now,
    `own` has a program's data set (`nas.jobs.session.reopen`).

    Returns:
        What the file holds: JSON values, explained in results/README.md.

    Raises:
        ConfigError: The recipe is wrong, its teacher cannot be had, or something else is where the bundle belongs.
        DataError: There is no test split.
        RunError: The search has not ended, or another process writes into the run.
        NoResultError: Every training of the architecture failed.
        ExportError: The bundle differs from what was trained; nothing of it is left behind.
        KeyboardInterrupt: Ctrl-C; the same command goes on.
    """
    check_retraining(request.seeds, request.settings)
    if directory is not None:
        check_place(directory, {**run_facts(RunDirectory.open(path)), RETRAIN: {}})
    lacking = "so nothing can be said of what it trains", "retrain"
    run, point, session, test_split = open_pick(path, request.pick, reporter, lacking, data, own)
    if directory is not None:
        check_place(directory, {**run_facts(run), RETRAIN: {}, "digest": point.digest})
    with run.lock():
        supernet = load_trained(session.run, session.space, session.device)
        setup = _setup(session, request, run.retrain_dir / "trainings")
        chosen = _chosen(session, point.architecture, request, points_of(session.run.trials()))
        architectures = [architecture for _, architecture in chosen.values()]
        if setup.config.teacher and request.teacher is None and untrained(setup, request.seeds, architectures):
            try:
                Teacher(setup.config.teacher, session.data.info)
            except ConfigError as error:
                text = f"{error.message}; without it, networks learn from the labels, as with --teacher ''"
                reporter.line("warning", text)
                request = replace(request, teacher="")
                setup = _setup(session, request, run.retrain_dir / "trainings")
        evaluation, images = evaluator_setup(session, weights_digest(session.run)), session.data.search
        with_supernet = inherited_accuracy(evaluation, supernet, images, architectures, reporter)
        records = trained_alone(setup, request.seeds, architectures, session.data, workers, reporter)
        reporter.line("test", "opened; no training has seen it")
        test, is_balanced = test_split.open(), evaluation.with_balanced
        rows: dict[str, dict[str, Any]] = {}

        def tested(subnet: Subnet) -> dict[str, float]:
            with torch_threads(1):
                correct = evaluation.count_correct(subnet, test)
            found = {"test_top1": top1_percent(correct)}
            return found | ({"test_balanced_top1": balanced_percent(correct, test.labels)} if is_balanced else {})

        for key, (name, architecture) in chosen.items():
            of_supernet = tested(supernet.extract(architecture))
            inherited = {**with_supernet[architecture.digest], **of_supernet}
            trainings = []
            for record in records:
                if record["digest"] == architecture.digest and record["error"] is None:
                    network = trained_network(replace(setup, seed=record["seed"]), architecture)
                    trainings.append({**record, **tested(network)})
            if trainings:
                rows[key] = network_row(name, architecture, session.space, inherited, trainings)
        failed = [record for record in records if record["error"] is not None]
        for record in failed:
            reporter.line("failed", f"{record['digest']}, seed {record['seed']}: {record['error']}")
        if PICKED not in rows:
            raise NoResultError(
                f"{path}: every training of {point.digest} failed: {failed[0]['error']}",
                hint=f"change the recipe with --set; to train again the same way, delete {setup.folder}",
            )
        teacher = session.config.teacher if request.teacher is None else request.teacher
        config, conditions = setup.config, evaluation.conditions(len(images), stage="search")
        found = {
            "run": run.name,
            "pick": request.pick,
            "from": request.start,
            "num_seeds": request.seeds,
            "epochs": config.train.epochs,
            PICKED: rows[PICKED],
            "baseline": rows.get("baseline"),
            **({"whole": rows["whole"]} if "whole" in rows else {}),
            "failed": [{key: record[key] for key in ("digest", "seed", "error")} for record in failed],
            "supernet": conditions.supernet,
            "search_images": conditions.num_images,
            "test_images": len(test),
            "splits": dict(evaluation.info.hashes),
            "precision": conditions.precision,
            "device": conditions.device,
            "torch": conditions.torch,
            "recipe": setup.recipe,
            "settings": {"teacher": teacher, "train": config.train.model_dump(mode="json")},
        }
        run.write_retrain(point.digest, found)
        reporter.line("report", f"{command_line('report', path)} puts it onto the page")
    if directory is not None:
        ended = [record for record in records if record["digest"] == point.digest and record["error"] is None]
        by = accuracy_of(session.config.search.objectives).name
        best = max(ended, key=lambda record: (record[by], -record["seed"]))
        subnet = trained_network(replace(setup, seed=best["seed"]), point.architecture)
        reporter.line("export", f"seed {best['seed']}, the best on the search split, to {directory}")
        row, origin = _described(run, point, best, found, request.command(run.path, point.digest, directory))
        export_measured(session, subnet, test, row, directory, BundleOptions(), origin)
    return {"schema_version": SCHEMA_VERSION, **found}


def _setup(session: Session, request: Request, folder: Path) -> StandAloneSetup:
    """How the architectures are trained; the seed is that of the first trainings."""
    path = session.run.path
    config = resolve_config(path / CONFIG, request.settings, {"teacher": request.teacher})
    check_policy(config.train.auto_augment)
    folders = session.folders if request.teacher is None else (Path.cwd(), *session.folders)  # it was typed now
    config = config.model_copy(update={"init": "", "init_ordered": False})
    session = replace(session, config=config, folders=folders)
    start = {"scratch": stand_alone_setup, "inherited": inherited_setup}[request.start]
    setup = start(session, request.epochs, folder)
    return replace(setup, keeps_weights=True)


def _chosen(
    session: Session, picked: Architecture, request: Request, measured: Iterable[FrontPoint]
) -> dict[str, tuple[str, Architecture]]:
    """What is trained: name and architecture by key of the result."""
    chosen = {PICKED: (request.pick, picked)}
    if request.with_baseline:
        name, baseline = baseline_of(session.space, picked, measured)
        if baseline == picked:
            session.reporter.line("baseline", f"none: {picked.digest} is the {name} of the space itself")
        else:
            chosen["baseline"] = name, baseline
    whole = session.space.largest()
    if request.with_whole and whole not in [architecture for _, architecture in chosen.values()]:
        chosen["whole"] = "largest", whole
    return chosen


def _described(
    run: RunDirectory, point: FrontPoint, best: Mapping[str, Any], found: Mapping[str, Any], command: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the bundle of a network says that was trained alone: its row of the table, and where it comes from."""
    row = table_row(run, point)
    latency = {key: value for key, value in row["conditions"].items() if key.startswith(("target", "latency"))}
    recipe = {key: found[key] for key in ("from", "num_seeds", "epochs", "recipe", "settings", "supernet")}
    recipe["seed"] = best["seed"]
    row |= {
        "top1": best["top1"],
        "top1_ci": best["top1_ci"],
        **{key: best[key] for key in ("balanced_top1", "balanced_top1_ci") if key in best},
        "conditions": {**best["conditions"], **latency},
        "retrained": {**recipe, "picked": found[PICKED], "baseline": found["baseline"]},
    }
    origin = provenance(run, best["digest"], command)
    return row, {**origin, "supernet_digest": found["supernet"], RETRAIN: recipe}
