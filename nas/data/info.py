"""What is known of a run's images without reading one."""

from collections.abc import Mapping
from dataclasses import dataclass

Triple = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataInfo:
    """What training, evaluation and a run's manifest keep of the images.

    Attributes:
        class_names: One a class; the position is the label.
        mean: Per channel of the train split, of pixels scaled to 0..1.
        std: Per channel of the train split, of pixels scaled to 0..1.
        flip_safe: Whether a mirrored image keeps its class; false for digits.
        hashes: Of the splits `train`, `search` and `test`, 16 hex digits over the stored images (encoded bytes
            where the source has them) and labels: the same in every process and for every file order.
    """

    class_names: tuple[str, ...]
    mean: Triple
    std: Triple
    flip_safe: bool
    hashes: Mapping[str, str]

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)
