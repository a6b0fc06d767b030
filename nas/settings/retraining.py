"""What `retrain` is asked for, checked before torch is imported."""

from collections.abc import Sequence
from difflib import get_close_matches

from nas.base import ConfigError
from nas.settings.config import keys_for

PLAIN, WHOLE, NARROW, NO_BASELINE = "plain", "whole", "narrow", "none"
RIVALS = (PLAIN, WHOLE, NARROW, "timm:NAME", NO_BASELINE)
"""What a network can be compared with: the best plain ViT measured at no more MACs; the largest network of the space;
the plain ViT of it that is next below in MACs, from random weights; a model of timm, from random weights or, with a tag
(`timm:NAME.TAG`), from its trained ones; nothing."""


def check_retraining(seeds: int, settings: Sequence[str], baselines: Sequence[str] = ()) -> None:
    """Raise a ConfigError where `retrain` has no seed, a setting of something else, or an unknown baseline."""
    if seeds < 1:
        raise ConfigError(f"--seeds {seeds}: every architecture is trained at least once", hint="--seeds 1")
    foreign = [setting for setting in settings if not setting.strip().startswith("train.")]
    if foreign:
        text = f"--set {foreign[0]}: retrain takes data, space and evaluation from the run"
        word, equals, value = foreign[0].partition("=")
        if meant := [key for key in keys_for(word.strip()) if key.startswith("train.")]:
            raise ConfigError(f"--set {foreign[0]}: unknown key", hint=f"--set {meant[0]}{equals}{value}")
        raise ConfigError(text, hint="--set train.KEY=VALUE changes the recipe; another run is what changes the rest")
    for name in baselines:
        if name not in RIVALS and not name.startswith("timm:"):
            near = get_close_matches(name, RIVALS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"timm:{name}, if it is a model of timm"
            raise ConfigError(f"--baseline {name}: it is one of {', '.join(RIVALS)}", hint=hint)
        if name in ("timm:", "timm:NAME"):
            raise ConfigError(f"--baseline {name}: which model of timm?", hint="--baseline timm:resnet18")
    if NO_BASELINE in baselines and len(baselines) > 1:
        raise ConfigError(f"--baseline {NO_BASELINE}, and others", hint=f"leave --baseline {NO_BASELINE} out")
