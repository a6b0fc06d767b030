"""What is known of a run's images without reading one."""

from collections.abc import Mapping
from dataclasses import dataclass

Triple = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataInfo:
    """What training, evaluation and a run's manifest keep of the images."""

    class_names: tuple[str, ...]  # one a class; the position is the label
    mean: Triple  # per channel of the train split, of pixels scaled to 0..1
    std: Triple  # per channel of the train split, of pixels scaled to 0..1
    flip_safe: bool  # whether a mirrored image keeps its class; false for digits
    # of the splits `train`, `search` and `test`, 16 hex digits over the stored images (encoded bytes where the source
    # has them) and labels: the same in every process and for every file order
    hashes: Mapping[str, str]

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)
