"""What a network learns from another one: the loss, and teachers from outside the search.

Shape letters: B batch, K classes.
"""

from pathlib import Path
from typing import Any

import torch
from timm.data import resolve_data_config
from torch import Tensor, nn
from torch.nn import functional

from nas.base import ConfigError
from nas.data import DataInfo
from nas.model import (  # which registers our networks with timm: an exported one can teach, too
    UNREADABLE,
    check_finite,
    check_model_folder,
    pretrained_model,
)


def soft_cross_entropy(student_BK: Tensor, teacher_BK: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of each image's prediction with the teacher's softened probabilities, nats, [B].

    Its gradient is that of the Kullback-Leibler divergence; none goes into the teacher's logits. Both logits [B, K] are
    divided by the temperature before the softmax.

    Source: arXiv 1503.02531; in place, with the largest subnet as the teacher: BigNAS, arXiv 2003.11142.
    """
    log_q, log_p = (functional.log_softmax(logits / temperature, dim=1) for logits in (student_BK, teacher_BK.detach()))
    return -(log_p.exp() * log_q).sum(dim=1)


class Teacher(nn.Module):
    """A trained timm model of the same classes that answers for the images of a training step.

    Images are resized to the teacher's own input size (bilinear) and normalised as it was trained. `spec` is
    `timm:NAME` or `local-dir:DIR`; `info` says how the images that it will get are normalised.

    Raises:
        ConfigError: The model cannot be had, holds NaN, or is not of so many classes.
    """

    def __init__(self, spec: str, info: DataInfo) -> None:
        super().__init__()
        self.model = _load(spec)
        check_finite(self.model.state_dict(), f"--teacher {spec}")
        config = resolve_data_config({}, model=self.model)
        self.size = config["input_size"][-2:]
        found = getattr(self.model, "num_classes", None)
        if found != info.num_classes:
            raise ConfigError(
                f"--teacher {spec}: has {found} classes, the data has {info.num_classes}",
                hint="a teacher must be trained on the same classes, in the same order; fine-tune it first",
            )
        # pixels = x * std + mean; what the teacher wants = (pixels - own mean) / own std
        own_mean, own_std = torch.tensor(config["mean"]), torch.tensor(config["std"])
        self.scale = nn.Parameter((torch.tensor(info.std) / own_std).view(1, 3, 1, 1))
        self.shift = nn.Parameter(((torch.tensor(info.mean) - own_mean) / own_std).view(1, 3, 1, 1))
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, K] of normalised images [B, 3, S, S]."""
        x = images * self.scale + self.shift
        if x.shape[-2:] != tuple(self.size):
            x = functional.interpolate(x, self.size, mode="bilinear", antialias=True)
        logits: Tensor = self.model(x)
        return logits.float()


class LateTeacher:
    """Answers as `Teacher` does, which is loaded when it is first asked: what is trained needs none any more.

    Loading draws nothing from torch's generator, whose state belongs to the step.
    """

    def __init__(self, spec: str, info: DataInfo, device: torch.device) -> None:
        self._spec, self._info, self._device = spec, info, device
        self._model: Teacher | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """Logits [B, K] of normalised images [B, 3, S, S]; raises as `Teacher` where it cannot be had."""
        if self._model is None:
            with torch.random.fork_rng(devices=[]):
                self._model = Teacher(self._spec, self._info).to(self._device)
        logits: Tensor = self._model(images)
        return logits


def _load(spec: str) -> Any:
    kind, _, name = spec.partition(":")
    if kind not in ("timm", "local-dir") or not name:
        raise ConfigError(f"--teacher {spec}: not understood", hint="timm:NAME or local-dir:DIR")
    try:
        if kind == "local-dir":
            check_model_folder(Path(name))
        return pretrained_model(name if kind == "timm" else spec)
    except ConfigError as error:
        raise ConfigError(
            f"--teacher {spec}: {error.message}", hint="a folder as timm and `export` write it"
        ) from error
    except UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"--teacher {spec}: {reason}",
            hint="timm:NAME of timm's registry, or local-dir:DIR, a folder with config.json and weights",
        ) from error
