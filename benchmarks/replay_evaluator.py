"""A search space measured once and for all: every architecture's answers image by image, and its costs.

Samplers, racing and recovery are compared on such a table exactly and in seconds, without images or weights.
"""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas.arch import Architecture, LayerChoice
from nas.base import LATENCY, EvaluationError, RunError
from nas.evaluation import RacePlan, race, unpack, with_answers
from nas.runs import Conditions, Measurement, Timed
from nas.space import SearchSpace, State, parse_space, with_feed_forward


@dataclass(frozen=True, eq=False)
class ReplayTable:
    """Every architecture of a space, measured.

    Attributes:
        space: All of whose architectures are here.
        digests: [n] uint64; an architecture's digest, read as a number, in ascending order.
        correct: [n, ceil(images / 8)] uint8; which images it got right, packed.
        macs: [n] int64; MACs per image.
        params: [n] int64.
        latency_ms: [n] float32; milliseconds per batch.
        conditions: Under which all of this holds.
        text: The file that describes the space.
    """

    space: SearchSpace
    digests: NDArray[np.uint64]
    correct: NDArray[np.uint8]
    macs: NDArray[np.int64]
    params: NDArray[np.int64]
    latency_ms: NDArray[np.float32]
    conditions: Conditions
    text: str

    def __len__(self) -> int:
        return len(self.digests)

    def row(self, architecture: Architecture) -> int:
        """Where an architecture is.

        Raises:
            EvaluationError: It is not in the table.
        """
        wanted = np.uint64(int(architecture.digest, 16))
        row = int(np.searchsorted(self.digests, wanted))
        if row == len(self.digests) or self.digests[row] != wanted:
            raise EvaluationError(f"{architecture.digest} is not in the table of {self.space.name}")
        return row

    def top1(self) -> NDArray[np.float64]:
        """[n]; percent."""
        counts = np.bitwise_count(self.correct).sum(axis=1)
        return np.asarray(100.0 * counts / self.conditions.num_images)

    def save(self, path: Path) -> None:
        """Write one compressed file."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            digests=self.digests,
            correct=self.correct,
            macs=self.macs,
            params=self.params,
            latency_ms=self.latency_ms,
            conditions=np.array(json.dumps(self.conditions.to_dict())),
            space=np.array(self.text),
        )
        path.write_bytes(buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> "ReplayTable":
        """Read a table.

        Raises:
            RunError: Missing, or not a table.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            text = str(arrays.pop("space"))
            conditions = Conditions(**json.loads(str(arrays.pop("conditions"))))
            return cls(space=parse_space(text, str(path)), conditions=conditions, text=text, **arrays)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path} is not a replay table: {error}") from error


class ReplayEvaluator:
    """Answers from a table what an evaluator would have measured, races included.

    Args:
        table: Of the whole space.
    """

    def __init__(self, table: ReplayTable) -> None:
        self.table = table
        self.conditions = table.conditions

    def evaluate(
        self,
        architecture: Architecture,
        plan: RacePlan | None = None,
        *,
        attempt: int = 0,  # noqa: ARG002
    ) -> Measurement:
        """Look an architecture up; see `Evaluator`.

        Raises:
            EvaluationError: It is not in the table.
        """
        table, row = self.table, self.table.row(architecture)
        count = self.conditions.num_images
        answers = unpack(table.correct[row].tobytes(), count)
        costs = Measurement(
            macs=float(table.macs[row]),
            params=float(table.params[row]),
            latency={LATENCY.name: Timed(ms=float(table.latency_ms[row]))},
            conditions=self.conditions,
            seconds=0.0,
        )
        correct, verdict = race(lambda numbers: answers[numbers], count, costs.values, plan)
        return with_answers(costs, correct, verdict)


def all_architectures(space: SearchSpace) -> Iterator[Architecture]:
    """Every architecture of a space once; hard constraints are left out of account, as in `space.size()`."""

    def walk(state: State, depth: int) -> Iterator[tuple[LayerChoice, ...]]:
        if state.layer == depth:
            yield ()
            return
        pairs = space.walk.feed_forwards(state.layer)
        for structure, following in space.walk.alive(state, depth):
            for rest in walk(following, depth):
                for pair in pairs:
                    yield (with_feed_forward(structure, *pair), *rest)

    for width in space.embed_dim:
        for depth in space.depth:
            for layers in walk(space.walk.start, depth):
                yield Architecture(embed_dim=width, layers=layers)
