"""When training aids act: led static maps first, a masked softmax beside linear attention for longer."""

from nas.config import TrainConfig
from nas.model.maps import Guidance

LINEAR_HOLDS, LINEAR_ENDS = 0.4, 0.8  # shares of the training (METHODS 3.3)


def guidance_at(progress: float, config: TrainConfig) -> Guidance | None:
    """The aids of a forward pass, or None once both have ended.

    - Static layers (DGSSA, arXiv 2310.07664, METHODS 2.2): they apply a mixture of their own dynamic maps and
      the static ones, whose share grows linearly to all of it over the first `train.static_guidance` of the
      steps.
    - Linear layers (Castling-ViT, arXiv 2211.10526, METHODS 3.3): a masked softmax branch, whole for the
      first 40 % of the steps, then falling linearly to nothing at 80 %.

    Args:
        progress: Steps done / steps in all.
        config: Which aids are on.
    """
    static = linear = 0.0
    if config.static_guidance:
        static = max(0.0, 1 - progress / config.static_guidance)
    if config.linear_aux:
        linear = min(1.0, max(0.0, (LINEAR_ENDS - progress) / (LINEAR_ENDS - LINEAR_HOLDS)))
    return Guidance(static=static, linear=linear) if static or linear else None
