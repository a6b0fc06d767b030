"""`SearchSpace`: every legal architecture, as domains of genes over a fixed backbone."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nas.arch import Architecture, Rules, bytes_to_run, cost
from nas.base import ConfigError, SearchSpaceError, cached_method, one_line
from nas.space import sampling
from nas.space.designs import DESIGNS
from nas.space.genome import Genome
from nas.space.prior import sample_by_gene


@dataclass(frozen=True, kw_only=True)
class SearchSpace(Genome):
    """All legal architectures over one backbone: a `Genome` that can be read from a file, counted and drawn from."""

    # Known designs that a search starts from (`known_designs`); they change nothing of the space.
    seeds: tuple[str, ...] = DESIGNS
    num_classes_from_data: bool = False  # whether `backbone.num_classes` is a stand-in until the data is known

    def _problems(self) -> Iterator[str]:
        yield from super()._problems()
        for seed in self.seeds:
            if seed not in DESIGNS:
                yield f"seeds: {seed!r} is not one of {', '.join(DESIGNS)}"

    def __getstate__(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}  # what is cached is made anew elsewhere

    @classmethod
    def from_yaml(cls, source: str | Path | Mapping[str, Any]) -> "SearchSpace":
        """Read a space; every key is documented in search_spaces/README.md.

        Args:
            source: The path of a YAML file; the name of a space that comes with the program, such as `cifar_small`;
                YAML text, which has a line break; or the keys and values of such a file.

        Raises:
            SearchSpaceError: Lists every problem, with its line where there is one.
            ConfigError: It is none of these.
        """
        if isinstance(source, Mapping):
            from nas.settings import dump_yaml

            try:
                text = dump_yaml(dict(source))
            except Exception as error:  # ruamel raises what it likes
                hint = "numbers, texts, lists and mappings of them"
                raise ConfigError(f"a space from keys and values: {one_line(str(error))}", hint=hint) from error
            return parse_space(text, str(source.get("name", "a mapping")))
        given: Any = source
        if not isinstance(given, str | Path):
            hint = "the path or the text of a YAML file, or its keys and values"
            raise ConfigError(f"a space from {given!r:.80}", hint=hint)
        return parse_space(given, "a text") if isinstance(given, str) and "\n" in given else read_space(given)

    def with_num_classes(self, num_classes: int) -> "SearchSpace":
        """The same space for a classifier of `num_classes`."""
        backbone = replace(self.backbone, num_classes=num_classes)
        return replace(self, backbone=backbone, num_classes_from_data=False)

    @cached_property
    def digest(self) -> str:
        """First 12 hex digits of the SHA-256 of the space's content."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values of what decides which architectures exist."""
        return {
            "name": self.name,
            "backbone": self.backbone.to_dict(),
            "embed_dim": list(self.embed_dim),
            **({"stem": list(self.stem)} if self.has_stems else {}),
            "depth": list(self.depth),
            "layers": [{gene: list(getattr(domain, gene)) for gene in domain.genes} for domain in self.layers],
            "constraints": self.constraints.to_dict(),
            "rules": {f.name: getattr(self.rules, f.name) for f in fields(Rules)},
        }

    def to_yaml(self) -> str:
        """The text of a file of this space, which `from_yaml` reads back."""
        from nas.settings import dump_yaml  # as in `read_space`

        values = self.to_dict()
        values["backbone"] = asdict(self.backbone)
        if self.num_classes_from_data:
            values["backbone"]["num_classes"] = "auto"
        layers = values.pop("layers")
        if all(domain == layers[0] for domain in layers):  # so that a setting of depth may be less
            values["layers"] = layers[0]
        else:
            values["overrides"] = [{"layers": i, **domain} for i, domain in enumerate(layers)]
        return dump_yaml({**values, "seeds": list(self.seeds)})

    def size(self) -> int:
        """Number of distinct architectures, before the hard constraints."""
        depths = frozenset(self.depth)
        return len(self.stem) * sum(self.walk.total(self.walk.begin(width), depths) for width in self.embed_dim)

    @cached_method
    def largest(self) -> Architecture:
        """The most MACs; under constraints, an architecture that no change of one gene makes larger."""
        return sampling.largest_within(self, self._extremes)

    def macs_range(self) -> tuple[int, int]:
        """Fewest and most MACs per image."""
        return cost.macs(self.smallest(), self.backbone), cost.macs(self.largest(), self.backbone)

    def params_range(self) -> tuple[int, int]:
        """Fewest and most parameters of a subnet, before the hard constraints."""
        return self._extremes.params_range()

    def memory_range(self) -> tuple[int, int]:
        """Fewest and most bytes that a subnet needs to run one image in fp32, before the hard constraints.

        Exact where `knows_memory`; elsewhere those of the extremes of MACs and parameters; others may need less than
        the first, or more than the second.
        """
        if (found := self._extremes.memory_range()) is not None:
            return found
        extremes = {self.smallest(), self.largest()} | {
            network.architecture for sign in (1, -1) if (network := self._extremes.weighted(0, sign))
        }
        needed = [bytes_to_run(architecture, self.backbone) for architecture in extremes]
        return min(needed), max(needed)

    @property
    def knows_memory(self) -> bool:
        """Whether `memory_range` is exact: the space is not too large to look for it."""
        return self._extremes.memory_range() is not None

    def sample(self, rng: np.random.Generator | int, *, tries: int = sampling.TRIES) -> Architecture:
        """Draw uniformly from the space (under constraints: at most so many draws, then the last one repaired).

        A generator, or a seed: the same seed draws the same architecture.
        """
        return sampling.sample(self, np.random.default_rng(rng), tries)

    def sample_stratified(self, rng: np.random.Generator | int) -> Architecture:
        """Draw an architecture whose MACs are spread evenly over the space's range, with a generator or a seed."""
        rng = np.random.default_rng(rng)
        return sampling.sample_near(self, rng.uniform(*self.macs_range()), rng)

    def sample_by_gene(self, rng: np.random.Generator | int) -> Architecture:
        """Draw gene by gene, so that every size, token pattern and operator has its floor, and the plain ViT, too."""
        return sample_by_gene(self, np.random.default_rng(rng))

    def mutate(self, architecture: Architecture, rng: np.random.Generator | int) -> Architecture:
        """Draw a neighbour: one gene changed, the rest repaired. The same one where it has no neighbour."""
        return sampling.mutate(self, architecture, np.random.default_rng(rng))


def read_space(path: str | Path, settings: Sequence[str] = ()) -> SearchSpace:
    """Read a search space from a YAML file, with settings such as `constraints.max_macs=2e6` on top.

    `path` may be the name of a space that comes with the program, such as `cifar_small`.

    Raises:
        SearchSpaceError: Lists every problem with its line.
    """
    from nas.settings import read_space_text  # pydantic and YAML, without which a space is built in half the time

    return parse_space(read_space_text(path, SearchSpaceError), str(path), settings)


def parse_space(text: str, source: str, settings: Sequence[str] = ()) -> SearchSpace:
    """A search space from YAML text; `source` is the file's name in the error, which is as of `read_space`."""
    from nas.space.file import build_space  # as above

    return build_space(text, source, settings, SearchSpace)
