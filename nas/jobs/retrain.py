"""`retrain`: an architecture trained alone and tested, beside baselines that are trained the same way."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from nas.arch import Architecture
from nas.base import (
    LATENCY,
    NAME,
    SCHEMA_VERSION,
    ConfigError,
    NoResultError,
    Reporter,
    accuracy_of,
    command_line,
    plural,
)
from nas.bundle import RETRAIN, BundleOptions, check_place
from nas.evaluation import balanced_percent, top1_percent
from nas.jobs.alone import trained_network
from nas.jobs.alone_records import inherited_setup, jobs_of, stand_alone_setup, trained_jobs, untrained
from nas.jobs.export import export_measured, open_pick, provenance, run_facts, table_row
from nas.jobs.measures import evaluator_setup
from nas.jobs.rivals.baselines import Rival, rivals_of, time_all
from nas.jobs.session import Session
from nas.jobs.trust import inherited_accuracy
from nas.latency import torch_threads
from nas.runs import CONFIG, FrontPoint, RunDirectory, network_row, points_of
from nas.settings import NO_BASELINE, NO_OWN, PLAIN, Own, check_retraining, resolve_config
from nas.training import Teacher, check_policy, load_trained, weights_digest

PICKED = "picked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is trained, and how.

    Attributes:
        start: `scratch`, random weights; `inherited`, those of the trained supernet.
        seeds: Trainings of each architecture.
        epochs: Of a training; None: as many as the supernet had.
        teacher: A trained model that teaches; None: what the run had.
        settings: `train.KEY=VALUE` on top of the run's recipe.
        baselines: What is trained beside it (`nas.settings.RIVALS`).
    """

    pick: str
    start: Literal["scratch", "inherited"] = "scratch"
    seeds: int = 1
    epochs: int | None = None
    teacher: str | None = None
    settings: tuple[str, ...] = ()
    baselines: tuple[str, ...] = (PLAIN,)

    def command(self, run: Path, digest: str, directory: Path) -> str:
        """The command line that makes the bundle again."""
        words = ["retrain", str(run), "--pick", digest, "--from", self.start, "--seeds", str(self.seeds)]
        words += [] if self.epochs is None else ["--epochs", str(self.epochs)]
        words += [] if self.teacher is None else ["--teacher", self.teacher]
        words += [word for setting in self.settings for word in ("--set", setting)]
        named = self.baselines or (NO_BASELINE,)
        words += [] if named == (PLAIN,) else [word for name in named for word in ("--baseline", name)]
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
        ConfigError: The recipe is wrong, its teacher or a model of timm cannot be had, or something else is where the
            bundle belongs.
        DataError: There is no test split.
        RunError: The search has not ended, or another process writes into the run.
        NoResultError: Every training of the architecture failed.
        ExportError: The bundle differs from what was trained; nothing of it is left behind.
        KeyboardInterrupt: Ctrl-C; the same command goes on.
    """
    check_retraining(request.seeds, request.settings, request.baselines)
    if directory is not None:
        check_place(directory, {**run_facts(RunDirectory.open(path)), RETRAIN: {}})
    lacking = "so nothing can be said of what it trains", "retrain"
    run, point, session, test_split = open_pick(path, request.pick, reporter, lacking, data, own)
    if directory is not None:
        check_place(directory, {**run_facts(run), RETRAIN: {}, "digest": point.digest})
    with run.lock():
        supernet = load_trained(session.run, session.space, session.device)
        folder = run.retrain_dir / "trainings"
        measured = points_of(session.run.trials())
        rivals = _rivals(session, point.architecture, request, folder, measured)
        teacher, firsts = rivals[0].setup.config.teacher, [(rival.setup, rival.architecture) for rival in rivals]
        if teacher and request.teacher is None and untrained(jobs_of(firsts, request.seeds)):
            try:
                Teacher(teacher, session.data.info)
            except ConfigError as error:
                text = f"{error.message}; without it, networks learn from the labels, as with --teacher ''"
                reporter.line("warning", text)
                request = replace(request, teacher="")
                rivals = _rivals(session, point.architecture, request, folder, measured)
        setup = rivals[0].setup
        ours = list(dict.fromkeys(rival.architecture for rival in rivals if not rival.is_guest))
        jobs = jobs_of([(rival.setup, rival.architecture) for rival in rivals], request.seeds)
        evaluation, images = evaluator_setup(session, weights_digest(session.run)), session.data.search
        with_supernet = inherited_accuracy(evaluation, supernet, images, ours, reporter)
        records = trained_jobs(jobs, session.data, workers, reporter)
        reporter.line("test", "opened; no training has seen it")
        test, is_balanced = test_split.open(), evaluation.with_balanced

        def tested(network: nn.Module) -> dict[str, float]:
            with torch_threads(1):
                correct = evaluation.count_correct(network, test)
            found = {"test_top1": top1_percent(correct)}
            return found | ({"test_balanced_top1": balanced_percent(correct, test.labels)} if is_balanced else {})

        rows: list[dict[str, Any]] = []
        timed: list[nn.Module] = []
        for rival in rivals:
            inherited, architecture = {}, rival.architecture
            if not rival.is_guest:
                inherited = with_supernet[architecture.digest] | tested(supernet.extract(architecture))
            ended = [record for record in records if rival.is_of(record) and record["error"] is None]
            networks = [rival.network(record["seed"]) for record in ended]
            trainings = [record | tested(one) for record, one in zip(ended, networks, strict=True)]
            if trainings:
                rows.append(network_row(rival.name, rival.about, inherited, trainings))
                timed.append(networks[0])
            elif rival is rivals[0]:
                break
        failed = [record for record in records if record["error"] is not None]
        for record in failed:
            reporter.line("failed", f"{record['digest']}, seed {record['seed']}: {record['error']}")
        if not rows:
            raise NoResultError(
                f"{path}: every training of {point.digest} failed: {failed[0]['error']}",
                hint=f"change the recipe with --set; to train again the same way, delete {setup.folder}",
            )
        teacher = session.config.teacher if request.teacher is None else request.teacher
        config, conditions = setup.config, evaluation.conditions(len(images), stage="search")
        latency: dict[str, Any] = {}
        if any(rival.is_guest for rival in rivals):  # of other families MACs say little of it
            times, latency = time_all(evaluation, supernet, timed, reporter)
            for row, ms in zip(rows, times, strict=True):
                row[LATENCY.name] = ms
        found = {
            "run": run.name,
            "pick": request.pick,
            "from": request.start,
            "num_seeds": request.seeds,
            "epochs": config.train.epochs,
            PICKED: rows[0],
            "baselines": rows[1:],
            **({"latency": latency} if latency else {}),
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
        if lost := _replaced(run.retrain_dir / f"{point.digest}.json", found):
            reporter.line("replaces", f"{lost}; its trainings are kept: the command that gave it shows it again")
        run.write_retrain(point.digest, found)
        reporter.line("report", f"{command_line('report', path)} puts it onto the page")
    if directory is not None:
        ended = [record for record in records if rivals[0].is_of(record) and record["error"] is None]
        by = accuracy_of(session.config.search.objectives).name
        best = max(ended, key=lambda record: (record[by], -record["seed"]))
        subnet = trained_network(replace(setup, seed=best["seed"]), point.architecture)
        reporter.line("export", f"seed {best['seed']}, the best on the search split, to {directory}")
        row, origin = _described(run, point, best, found, request.command(run.path, point.digest, directory))
        export_measured(session, subnet, test, row, directory, BundleOptions(), origin)
    return {"schema_version": SCHEMA_VERSION, **found}


def _replaced(path: Path, found: Mapping[str, Any]) -> str:
    """The answer of before, in words, where a new one does not hold all of it; empty: nothing is lost."""
    try:
        before = json.loads(path.read_text())
        old, new = ({row["digest"] for row in answer["baselines"]} for answer in (before, found))
        known = before["recipe"] == found["recipe"] and before["num_seeds"] <= found["num_seeds"] and old <= new
        epochs = plural(before["epochs"], "epoch")
    except (OSError, ValueError, LookupError, TypeError):
        return ""  # there is none, or an earlier version wrote it
    return "" if known else f"the answer of {epochs} beside {plural(len(old), 'baseline')}"


def _rivals(
    session: Session, picked: Architecture, request: Request, folder: Path, measured: Sequence[FrontPoint]
) -> list[Rival]:
    """What is trained, the picked network first; the seeds are those of the first trainings."""
    config = resolve_config(session.run.path / CONFIG, request.settings, {"teacher": request.teacher})
    check_policy(config.train.auto_augment)
    if (
        config.train.trainable != "all"
        and request.start == "scratch"
        and "train.trainable" in "".join(request.settings)
    ):
        raise ConfigError(
            f"--set train.trainable={config.train.trainable}: random weights would stay as they are",
            hint="--from inherited goes on from the supernet's",
        )
    folders = session.folders if request.teacher is None else (Path.cwd(), *session.folders)  # it was typed now
    config = config.model_copy(update={"init": "", "init_ordered": False})
    session = replace(session, config=config, folders=folders)
    train = config.train.model_copy(update={"trainable": "all"})  # random weights must not stay
    anew = replace(session, config=config.model_copy(update={"train": train}))
    setup = scratch = replace(stand_alone_setup(anew, request.epochs, folder), keeps_weights=True)
    if request.start == "inherited":
        setup = replace(inherited_setup(session, request.epochs, folder), keeps_weights=True)
    own = Rival(name=request.pick, architecture=picked, setup=setup, start=request.start)
    names = [name for name in request.baselines if name != NO_BASELINE]
    return rivals_of(own, names, scratch, measured, session.reporter)


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
        "retrained": {**recipe, **{key: found[key] for key in (PICKED, "baselines", "latency") if key in found}},
    }
    row.pop("plain", None)  # that of the search has inherited weights
    origin = provenance(run, best["digest"], command)
    return row, {**origin, "supernet_digest": found["supernet"], RETRAIN: recipe}
