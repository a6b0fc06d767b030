"""A run as an object: its front and trials as tables, its supernet, and what can be asked of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from html import escape
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nas.api.arguments import given_architecture, hinted, pick_of
from nas.api.tables import front_frame, rows_frame, trials_frame
from nas.arch import Architecture
from nas.base import ConfigError, Reporter, RunError, plural
from nas.report import compare_rows, compare_runs, draw_front, verdict_of
from nas.runs import (
    Measurement,
    ParetoFront,
    RunDirectory,
    config_of_run,
    design_points,
    picked,
    plain_vits,
    results_of,
    retrained_networks,
    searched_runs,
    space_of_run,
)
from nas.settings import (
    NO_OWN,
    Own,
    OwnMetric,
    OwnTarget,
    own_metrics,
    own_sampler,
    own_targets,
    path_of,
    written_settings,
)

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from nas.bundle import ExportReport
    from nas.model import Supernet
    from nas.space import SearchSpace

SHOWN = ("knee", "top1", "balanced_top1", "macs", "params", "latency_ms", "latency_ratio")
"""Columns of a front in a notebook, those that there are."""


class Run:
    """A run in a folder, finished or not: `nas.search` returns one, `nas.load` opens one.

    Tables are read when they are asked for, so a run that goes on elsewhere is seen as it is.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: Path, *, data: Any = None, own: Own = NO_OWN, quiet: bool = True) -> None:
        self.path, self._reporter = path, Reporter(quiet=quiet)
        self._data, self._own = (
            (data, own) if data is None or isinstance(data, str) else (None, replace(own, data=data))
        )
        self._run = RunDirectory.open(path)

    def __repr__(self) -> str:
        return f"nas.load({str(self.path)!r})"

    @property
    def space(self) -> "SearchSpace":
        """The search space, with the classes of the images."""
        return space_of_run(self._run)

    @property
    def pareto(self) -> ParetoFront:
        """The front as a value: `pareto.knee()`, `pareto.pick("top1")`, `pareto.hypervolume()`."""
        return results_of(self._run).front

    @property
    def front(self) -> "pandas.DataFrame":
        """The Pareto front, of the trials so far until it is final: a row an architecture, by digest, cheapest first.

        The columns are those of `front.csv` (results/README.md) and one for each gene that the space leaves open, such
        as `layers.03.attention`, empty where it has no effect. `front.attrs["units"]` has the unit of each metric.

        Raises:
            RunError: Nothing was measured yet.
        """
        return front_frame(results_of(self._run))

    @property
    def trials(self) -> "pandas.DataFrame":
        """All trials, also failed and repeated ones: a row a trial, by number; columns of `trials.csv`, and the genes.

        Raises:
            RunError: Nothing was measured yet.
        """
        return trials_frame(results_of(self._run))

    @property
    @hinted
    def supernet(self) -> "Supernet":
        """The trained supernet, in evaluation mode; `supernet.extract(architecture)` is a network of its own.

        Raises:
            RunError: It is not trained to the end, or there are several.
        """
        from nas.latency import resolve_device
        from nas.training import load_trained

        if supernets := searched_runs(self._run):
            raise RunError(
                f"{self.path}: has {len(supernets)} supernets",
                hint=f"nas.load({str(self.path / next(iter(supernets)))!r}).supernet is one of them",
            )
        return load_trained(self._run, self.space, resolve_device(config_of_run(self._run).device))

    def plot(self) -> "Figure":
        """Draw accuracy against MACs and against latency: the front, what is not on it, plain ViTs, the knee."""
        found = results_of(self._run)
        drawn = design_points(found), retrained_networks(found), plain_vits(found)
        figure = draw_front(found.front, found.others, *drawn)
        setattr(figure, "_repr_png_", partial(_png, figure))  # noqa: B010 - shown in a notebook without its magic words
        return figure

    def _repr_html_(self) -> str:
        """The front as a table with a line above it, as a notebook shows a run."""
        stage, name = self._run.manifest.stage, escape(self._run.name)
        try:
            found = results_of(self._run)
        except RunError as error:
            return f"<p><b>{name}</b>: {stage}; {escape(error.message)}</p>"
        frame, verdict = front_frame(found), verdict_of(found)["text"] or ""
        objectives = [objective.metric.name for objective in found.front.objectives]
        metrics = config_of_run(self._run).search.own_metrics
        columns = [column for column in dict.fromkeys([*SHOWN, *objectives, *metrics]) if column in frame]
        words = (
            f"{stage}, {plural(len(frame), 'architecture')} on the front, hypervolume {found.front.hypervolume():.4f}"
        )
        return f"<p><b>{name}</b>: {words}. {escape(verdict)}</p>{frame[columns].to_html(float_format='{:.4g}'.format)}"

    @hinted
    def evaluate(self, architecture: Architecture | Mapping[str, Any] | str) -> Measurement:
        """Measure an architecture of the space with the supernet's weights, as a trial of the search is measured.

        Args:
            architecture: Or its `to_dict()`, or what `nas show` takes: `knee`, `top1`, a digest, the path of an
                architecture file.

        Returns:
            Values and intervals (`.values`, `.intervals`) on the search split, in the units of the metrics, and the
            conditions. Nothing is written into the run.

        Raises:
            ArchitectureError: It is not in the space.
            ConfigError: It is no architecture.
            EvaluationError: It cannot be measured.
            RunError: No such architecture, or the images are others than they were.
        """
        from nas.jobs import evaluate, owning_run, reopen

        given = given_architecture(architecture)
        asked = picked(self._run, given) if isinstance(given, str) else given
        session = reopen(owning_run(self._run, asked).path, self._reporter, self._data, self._own)
        return evaluate(session, asked if isinstance(asked, Architecture) else asked.architecture)

    @hinted
    def export(
        self,
        architecture: Architecture | Mapping[str, Any] | str = "knee",
        *,
        to: str | Path,
        formats: Sequence[str] = ("timm", "pt2", "onnx"),
        opset: int | None = None,
        max_int8_loss: float | None = None,
        license: str | None = None,
    ) -> "ExportReport":
        """Write an architecture as a model bundle, as `nas export` does: measured again, reloaded, compared.

        Args:
            architecture: Or its `to_dict()`, or what `nas export --pick` takes.
            to: Folder of the bundle.
            formats: Of `timm`, `pt2`, `onnx`, `onnx-int8`, `openvino`.
            opset: Of ONNX; None: that of the installed torch.
            max_int8_loss: Points of top-1 that `onnx-int8` may lose; None: 1.
            license: Of the weights, such as `apache-2.0`; None: the bundle says none.

        Raises:
            ExportError: What was written differs from the table; nothing is left behind.
            DataError: There is no test split, or its images changed.
            RunError: The search has not ended, or there is no such architecture.
        """
        from nas.bundle import BundleOptions
        from nas.jobs import export_pick

        options = BundleOptions(formats=formats, opset=opset, max_int8_loss=max_int8_loss, license=license)
        with pick_of(architecture) as pick:
            return export_pick(self.path, pick, Path(to), options, self._reporter, self._data, self._own)

    @hinted
    def repeat(self, seeds: int, *, workers: int = 0, ray_address: str | None = None) -> "pandas.DataFrame":
        """Search the supernet once more with other seeds, as `nas search --seeds`: how much of the front is chance?

        Args:
            seeds: Searches in all, the run's own among them.
            workers: Ray actors that measure; 0: this process.
            ray_address: Of a Ray cluster; None: this machine.

        Returns:
            A row a search: its seed, hypervolume, the size of its front. The run's front is that of all of them, with
            a column `found_by`.

        Raises:
            ConfigError: A sampler, metric or device of one's own is not there (`nas.load(..., sampler=...)`).
            RunError: The run is not finished, or is over several supernets.
        """
        from nas.jobs import Budget, reopen, repeat

        if self._run.manifest.stage != "finished":
            raise RunError(f"{self.path}: is not finished", hint="the call that began it goes on")
        session = reopen(self.path, self._reporter, self._data, self._own)
        repeat(session, Budget(trials=None, workers=workers, ray_address=ray_address), seeds)
        return rows_frame((self._run.front() or {})["seeds"], "searches", "seed")

    @hinted
    def trust(
        self, *, architectures: int = 24, seeds: int = 2, epochs: int | None = None, workers: int = 0
    ) -> "pandas.DataFrame":
        """Train architectures alone to see whether the supernet ranks right, as `nas trust`, which takes long.

        Args:
            architectures: So many, spread over the MACs; at least 4, and more go on with these.
            seeds: Trainings of each.
            epochs: Of each training; None: as many as the supernet had.
            workers: Trainings at a time, by Ray; 0: one after the other in this process.

        Returns:
            A row an architecture; `attrs` has the rest of `trust.json`, such as `attrs["kendall_tau"]`.

        Raises:
            RunError: The supernet is not trained.
            NoResultError: Fewer than four were trained to their end.
        """
        from nas.jobs import trust

        found = trust(
            self.path,
            self._reporter,
            architectures=architectures,
            seeds=seeds,
            epochs=epochs,
            workers=workers,
            data=self._data,
            own=self._own,
        )
        return rows_frame(found, "architectures", "digest")

    @hinted
    def retrain(
        self,
        architecture: Architecture | Mapping[str, Any] | str = "knee",
        *,
        start: Literal["scratch", "inherited"] = "scratch",
        seeds: int = 1,
        epochs: int | None = None,
        teacher: str | None = None,
        settings: Mapping[str, Any] | None = None,
        baselines: Sequence[str] | str = ("plain",),
        workers: int = 0,
        to: str | Path | None = None,
    ) -> "pandas.DataFrame":
        """Train an architecture alone, then test it beside baselines trained the same way, as `nas retrain`.

        Args:
            architecture: Or its `to_dict()`, or what `nas retrain --pick` takes.
            start: At random weights, or at those of the supernet.
            seeds: Trainings of each.
            epochs: Of each training; None: as many as the supernet had.
            teacher: A trained model that teaches; None: what the run had.
            settings: Of the recipe, such as `{"train.lr": 1e-3}`.
            baselines: What is trained beside it: `plain`, `whole`, `narrow`, `timm:NAME`, as `nas retrain --baseline`.
            workers: Trainings at a time, by Ray; 0: one after the other in this process.
            to: Folder of a bundle of the network that is best on the search split; None: none is written.

        Returns:
            A row a training; `attrs` has what the run keeps of it (results/README.md).

        Raises:
            ConfigError: The recipe is wrong.
            DataError: There is no test split.
            RunError: The search has not ended, or there is no such architecture.
        """
        from nas.jobs import Request, retrain
        from nas.report import training_rows

        names = (baselines,) if isinstance(baselines, str) else baselines
        if not (isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)):
            raise ConfigError(f"baselines={baselines!r}: a list of names is expected", hint='["plain", "narrow"]')
        with pick_of(architecture) as pick:
            request = Request(
                pick=pick,
                start=start,
                seeds=seeds,
                epochs=epochs,
                teacher=teacher,
                settings=tuple(written_settings(settings)),
                baselines=tuple(names),
            )
            directory = None if to is None else path_of("to", to)
            found = retrain(
                self.path, request, self._reporter, workers=workers, directory=directory, data=self._data, own=self._own
            )
        return rows_frame({**found, "rows": training_rows(found)}, "rows")


def _png(figure: "Figure") -> bytes:
    content = BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


@hinted
def load(
    path: str | Path,
    *,
    data: Any = None,
    metrics: Sequence[OwnMetric] = (),
    sampler: Callable[..., Any] | None = None,
    targets: Sequence[OwnTarget] = (),
    quiet: bool = True,
) -> Run:
    """Open a run that is there; looking at it imports no torch.

    Args:
        path: Its folder, such as `results/digits-1`.
        data: A data spec of the same images, where they are now, or the data set that the run was made with; needed to
            measure and export where they are not where they were.
        metrics: Those the run was made with, to measure other architectures; what was measured is shown without.
        sampler: What makes an Optuna sampler, likewise, to repeat the search (`Run.repeat`).
        targets: Devices, likewise.
        quiet: Whether nothing is said on standard error.

    Raises:
        RunError: It is no run.
        ConfigError: A metric, the sampler, a target or the path is none.
    """
    own = Own(metrics=own_metrics(metrics), sampler=own_sampler(sampler), targets=own_targets(targets))
    return Run(path_of("path", path), data=data, own=own, quiet=quiet)


@hinted
def compare(*runs: Run | str | Path) -> "pandas.DataFrame":
    """Runs side by side, as `nas compare`: hypervolumes with one reference, the best within budgets.

    Args:
        runs: Two or more, or their folders.

    Returns:
        A row a run; `attrs` has the rest of `nas compare --format json`, such as `attrs["differences"]`.

    Raises:
        RunError: There is one run only, one has measured nothing, or they share no objective.
    """
    paths = [run.path if isinstance(run, Run) else path_of("runs", run) for run in runs]
    found = compare_runs(*paths)
    return rows_frame({**found, "runs": compare_rows(found)}, "runs", "run")
