"""Search for the Pareto front of small, fast Vision Transformers.

`import nas` is light: the public names below load what they need when they are first used. It also tells timm
how to build an exported model, whichever is imported first:

    timm.create_model("local-dir:DIR", pretrained=True)

The files, in reading order:

    errors.py                  every error a user can cause, each with a hint
    chunks.py                  how much a CPU computes at a time when it only infers
    architecture.py            the genotype: what is chosen for every layer; the backbone: what is fixed
    metrics.py                 what can be measured, in which unit, and which way is better
    tune_config.py             what supernet trials vary, and when a bad one is stopped
    target.py                  where and how latency is measured, as text and as a value
    config.py                  the knobs of a run, typed and validated
    yaml_file.py               YAML with line numbers
    document.py                what a person wrote, where it is written, and all that is wrong with it
    trial.py                   what was measured, under which conditions, and how it ended
    cost.py                    exact MACs and parameters from arithmetic alone
    memory.py                  peak activation memory from arithmetic alone
    space.py                   the search space: every legal architecture; count, encode, decode, mutate
    space_walk.py              which choices may follow which
    space_sampling.py          drawing architectures, uniformly and evenly over MACs
    designs.py                 designs of the field as architectures of a space
    space_paths.py             cheapest networks, exactly, with a limit on the peak of memory
    space_bounds.py            hard bounds, the least possible within them, the proof that nothing is
    space_largest.py           the largest architecture within hard bounds
    space_file.py              the keys of a search space's YAML
    space_reasons.py           what a search space rules out or leaves open, in words
    run_directory.py           a run's folder: the only place that knows its file names
    ray_connection.py          Ray, started or found
    front_point.py             an architecture and what was measured of it
    pareto.py                  the front: dominance, hypervolume, knee
    sub_spaces.py              what a supernet trial changes of the space and of the recipe
    supernet_runs.py           the supernets of a run: their trials, the union of their fronts
    model/pooling.py           token pooling: fewer patch tokens on their grid
    model/glad.py              fewer tokens by learned queries on top of the average (GLAD)
    model/maps.py              what attention modules hand on; training aids; slices of the store
    model/attention.py         dynamic and shared attention, and which module a layer gets
    model/hallucination.py     heads whose maps derive from other heads' (hMHSA)
    model/static_attention.py  learned maps, the same for every image (DGSSA)
    model/linear_attention.py  linear-angular attention (Castling-ViT)
    model/features.py          feature maps: which layers have one, and how timm lets them be chosen
    model/feed_forward.py      feed-forward with a low-rank second matrix; its training branches (cFFN)
    model/subnet.py            one architecture as a plain classifier: the only forward pass, known to timm
    model/supernet.py          one set of weights for every architecture
    training/samples.py        a labelled image as it was stored
    training/sources.py        where images come from
    training/timm_source.py    images through timm's data set readers
    training/splits.py         which image belongs to which split
    training/data.py           the images of a run, decoded; the guarded test split
    training/sampling.py       which architectures a training step trains
    training/checkpoint.py     weights, optimiser state and step on disk
    training/guidance.py       when the training aids of static and linear layers act
    training/pretrained.py     weights of a trained plain ViT, from timm or a file
    training/calibration.py    what such a ViT does on images; first values of the operators
    training/ordering.py       the order of its channels, heads and hidden neurons
    training/warm_start.py     a supernet started from it
    training/distributed.py    supernet training in several processes, on this machine or a cluster
    training/world.py          the processes that train one supernet together
    training/augmentation.py   random crops, flips, policies, Mixup: on whole batches
    training/distill.py        divergences, and teachers from outside
    training/step.py           the gradients of one step: who sees which images and learns from what
    training/health.py         progress, the log of losses, divergence
    training/trainer.py        the loop over steps: checkpoints, exact resume, restarts
    evaluation/accuracy.py     which images a classifier gets right
    evaluation/scores.py       from right and wrong answers to a measurement
    evaluation/racing.py       what is surely dominated on some images is not shown the others
    evaluation/onnx_file.py    a subnet as an ONNX file
    evaluation/targets.py      a subnet made ready for a target; cores of its own
    evaluation/latency.py      latency as a ratio to a reference model
    evaluation/profile.py      latency predicted from measured architectures
    evaluation/exclusive.py    the latency of a front, with nothing else running
    evaluation/evaluator.py    from an architecture to a measurement
    evaluation/replay.py       a small space measured once and for all
    search/study.py            what to propose next: Optuna
    search/samplers.py         which sampler proposes, and what it may see
    search/evolution.py        AutoFormer's evolution, the baseline of the field
    search/predictor.py        predictor-guided rounds
    search/journal.py          Optuna's journal file with group commits
    search/workers.py          where architectures are measured: what all workers share, and those of this process
    search/ray_workers.py      where they are measured: Ray actors, on this machine or a cluster
    search/ray_tasks.py        long jobs that do not need each other, as Ray tasks
    search/loop.py             propose, measure, record
    search/standing.py         how far a search is, and the front that a proposal may see
    search/reuse.py            what other runs measured already
    search/supernet_trials.py  Ray Tune, Optuna and ASHA over the trainings of supernets
    report.py                  an architecture layer by layer, how a run stands
    front_table.py             tables of fronts: what was measured, how far it can be believed
    figure.py                  the picture of a front
    terminal_plot.py           small plots of characters
    measured.py                all that a run has measured, over its supernets
    report_curve.py            how the hypervolume grew, and a random search beside it
    report_data.py             what the page of a run shows, as JSON values
    html_report.py             report.html: that data and the scripts in report_page/ in one file
    compare.py                 two runs side by side
    trust.py                   does the supernet rank right: which architectures are asked, rank correlations
    trust_figure.py            the picture of it: inherited against stand-alone top-1
    bundle.py                  a model bundle: its files, and the comparison it has to pass
    model_card.py              the README of a bundle
    export.py                  a point of a front as a bundle
    check.py                   what a search space amounts to: size, range of costs, extremes
    doctor.py                  versions, devices, self-tests, what is missing
    callbacks.py               what other code may see of a run while it goes on; TensorBoard
    session.py                 a run opened for work: space, configuration, images, device
    progress.py                words for people while something long is running
    front_latency.py           the front's latency, measured again; the profile a search goes by
    latency_runs.py            `latency`: a front, a bundle or a space measured on this machine
    latency_exchange.py        the front measured on another device, by files
    device_measure.py          the script that goes there: needs numpy and onnxruntime alone
    pipeline.py                the stages of a run, one after the other
    supernet_trial.py          one of these trainings, in a process of its own
    supernet_union.py          a run over several supernets
    export_pick.py             from a point of a run's front to a bundle
    redundancy.py              how redundant each layer's attention is: `rank-layers`
    stand_alone.py             an architecture trained alone, as the supernet of its run was
    trained_alone.py           such trainings, each done once: their records, and what is left
    trust_run.py               what such trainings say of a supernet: `trust`
    retrain.py                 what a retrained architecture is compared with; its numbers in words
    retrain_run.py             an architecture of the front trained alone and tested: `retrain`
    rehearsal.py               a few steps and trials, done for real and timed
    forecast.py                what a command will need: `--dry-run`
    cli_options.py             flags and arguments, their types and help
    cli_output.py              results on standard output, in the format asked for
    cli_latency.py             `latency` and what belongs to it
    cli_look.py                commands that change nothing
    cli_trust.py               `trust`
    cli_retrain.py             `retrain`
    cli.py                     commands, exit codes
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

from wrapt import register_post_import_hook

if TYPE_CHECKING:
    from nas import cost
    from nas.architecture import Architecture, Backbone, LayerChoice
    from nas.model.subnet import Subnet
    from nas.model.supernet import Supernet
    from nas.pareto import ParetoFront
    from nas.run_directory import RunDirectory
    from nas.space import SearchSpace

    __version__: str

__all__ = [
    "Architecture",
    "Backbone",
    "LayerChoice",
    "ParetoFront",
    "RunDirectory",
    "SearchSpace",
    "Subnet",
    "Supernet",
    "__version__",
    "cost",
]

_HOMES = {
    "Architecture": "nas.architecture",
    "Backbone": "nas.architecture",
    "LayerChoice": "nas.architecture",
    "ParetoFront": "nas.pareto",
    "RunDirectory": "nas.run_directory",
    "SearchSpace": "nas.space",
    "Subnet": "nas.model.subnet",
    "Supernet": "nas.model.supernet",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    elif name == "cost":
        value = importlib.import_module("nas.cost")
    elif name == "__version__":
        value = _version()
    else:
        raise AttributeError(f"module 'nas' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("vit-front")
    except metadata.PackageNotFoundError:
        return "0+uninstalled"  # a checkout on sys.path


def _register_with_timm(_: ModuleType) -> None:
    importlib.import_module("nas.model.subnet")


register_post_import_hook(_register_with_timm, "timm.models")
