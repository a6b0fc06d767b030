"""By what a run measures: its evaluator, and what is fixed when its search first starts."""

from collections.abc import Mapping

from nas.arch import Architecture, cost
from nas.base import BALANCED, LATENCY, MACS, PARAMS, TOP1, Objective
from nas.evaluation import EvaluatorSetup, build_evaluator, evaluator_arrays, of_network
from nas.jobs.session import Session
from nas.latency import Predictor, latency_profiles, searched_latencies, torch_threads
from nas.model import Supernet
from nas.runs import REFERENCE_MARGIN, Measurement, SearchIdentity, reference_elsewhere
from nas.training import load_trained, weights_digest

CALIBRATION_ROUNDS = 30
CALIBRATION_S = 5.0  # at least, where latency is bounded: a machine's speed changes within seconds


def search_identity(session: Session, supernet: Supernet) -> SearchIdentity:
    """What a run's search is measured by: as it was when it first started, else measured now."""
    if (fixed := session.run.manifest.search) is not None:
        return fixed
    space = session.space
    setup = evaluator_setup(session)
    searched = searched_latencies(session.config, space)
    with torch_threads(1):
        reference_ms = {
            name: setup.meter(supernet, target).calibrate(
                CALIBRATION_ROUNDS, CALIBRATION_S if name in space.constraints.max_latency else 0.0
            )
            for name, target in setup.targets.items()
            if name == LATENCY.name or name in searched
        }
    largest = setup.reference or space.largest()
    worst = {
        TOP1.name: 0.0,
        BALANCED.name: 0.0,
        MACS.name: REFERENCE_MARGIN * cost.macs(largest, space.backbone),
        PARAMS.name: REFERENCE_MARGIN * space.params_range()[1],
    }
    for name in reference_ms.keys() & setup.profiles.keys():
        (reference_ms[name],) = Predictor(setup.profiles[name]).predict([largest])
    worst |= {name: REFERENCE_MARGIN * ms for name, ms in reference_ms.items()}
    of_largest = of_network(session.metrics, supernet.extract(space.largest()))
    for metric in session.metrics:
        given = 0.0 if metric.direction == "maximize" else REFERENCE_MARGIN * of_largest.get(metric.name, 1.0)
        worst[metric.name] = given if metric.worst is None else metric.worst
    search = session.config.search
    return SearchIdentity(
        objectives=tuple(Objective(search.metric(n), worst[n]) for n in search.objectives),
        reference_ms=reference_ms.pop(LATENCY.name),
        further_reference_ms=reference_ms,
        reference_digest=largest.digest,
    )


def evaluator_setup(
    session: Session, supernet_digest: str = "", reference_ms: Mapping[str, float] | None = None
) -> EvaluatorSetup:
    """How a run measures.

    The digest names the weights in the conditions; `reference_ms` has the milliseconds per batch of the reference model
    by the name of the metric. None: no latency is measured in a search.
    """
    return EvaluatorSetup(
        space=session.space,
        config=session.config.evaluate,
        info=session.data.info,
        device=session.device.type,
        precision=session.precision,
        supernet_digest=supernet_digest,
        latencies=searched_latencies(session.config, session.space) if reference_ms else (),
        reference_ms=reference_ms or {},
        profiles=latency_profiles(session.located, session.space),
        metrics=session.metrics,
        devices=session.own.targets,
        with_balanced=BALANCED.name in session.config.search.objectives,
        reference=reference_elsewhere(session.run, session.space),
    )


def evaluate(session: Session, architecture: Architecture) -> Measurement:
    """Measure an architecture with the weights of a session's supernet, as a trial of its search is measured.

    Raises:
        EvaluationError: It cannot be measured.
        RunError: The supernet is not trained to the end.
    """
    supernet = load_trained(session.run, session.space, session.device)
    identity = search_identity(session, supernet)
    setup = evaluator_setup(session, weights_digest(session.run), identity.reference_clocks)
    with torch_threads(1):
        return build_evaluator(setup, evaluator_arrays(supernet, session.data.search)).evaluate(architecture)
