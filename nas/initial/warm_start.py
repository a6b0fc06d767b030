"""Start a supernet from a trained plain ViT, with for every operator what changes it least; or from a run."""

from pathlib import Path

import torch

from nas.arch import hallucinated_heads
from nas.base import CheckpointError, ConfigError
from nas.data import ImageSet
from nas.initial.ordering import order_by_importance, pair_heads
from nas.initial.plain import Weights
from nas.initial.pretrained import initial_weights, plain_subnet
from nas.initial.pvt import is_pyramid
from nas.model import Supernet, check_finite
from nas.runs import MANIFEST, RunDirectory, WeightSource, space_of_run
from nas.space import SearchSpace, why_not_within
from nas.training import (
    CALIBRATION_IMAGES,
    FIRST_IMAGES,
    Calibration,
    calibrate,
    first_batches,
    fit_cuts,
    fit_depths,
    fit_head,
    fit_operators,
    start_operators,
    trained_weights,
)


def warm_start(supernet: Supernet, spec: str, images: ImageSet, *, ordered: bool, device: torch.device) -> list[str]:
    """Fill a supernet's weights in place from what `spec` names; returns the names of those that stay random.

    Of the supernet of a run's folder the space has all or a part, and takes it. A plain ViT's weights (`timm:NAME`,
    `local-dir:DIR`, `file:PATH`) go where they belong (law 2); convolutions of feed-forwards, if it has none, become
    the identity. Then it is watched on the first training images without augmentation: static maps become its mean
    maps, low-rank factors the truncated decomposition of its matrices, the rest what `fit_operators` gives; where the
    space hallucinates, similar heads are put where a derived head starts as a copy of its parent. `ordered`: where the
    space has narrower networks, heads and hidden neurons are put in the order of their importance and channels on their
    principal axes (`order_by_importance`), which they keep; and where the start has every greatest size, matrices are
    fitted to what narrower networks leave of their inputs (`fit_cuts`), and the classifier to the features of shallower
    ones (`fit_depths`). A classifier of other classes is replaced by one that is fitted to the images (`fit_head`).

    Raises:
        ConfigError: The weights cannot be had or are no plain ViT.
        CheckpointError: They do not fit into the space.
    """
    space = supernet.space
    if (Path(spec) / MANIFEST).is_file():
        copy_supernet(supernet, Path(spec))
        return []
    weights = initial_weights(spec, space.backbone)
    weights |= _identities(weights, space)
    missing = set(supernet.load_timm(weights))
    if is_pyramid(weights):  # what operators begin with is measured on plain ViTs
        return sorted(missing)
    fits = ordered and _fills(supernet, weights)
    ordered = ordered and any(
        len(values) > 1 and name.endswith(("embed_dim", "num_heads", "mlp_ratio"))
        for name, values in space.choices().items()
    )
    num_real = _num_real(space, len(weights["blocks.0.attn.qkv.weight"]) // (3 * space.backbone.head_dim))
    if ordered or num_real is not None:
        calibration = watch(weights, space, images, device, FIRST_IMAGES)  # with 1,000 the order is no better
        if ordered:
            head_dim = space.backbone.head_dim
            weights = order_by_importance(weights, head_dim, calibration, fitted=fits, num_real=num_real)
        elif num_real is not None:
            weights = pair_heads(weights, space.backbone.head_dim, calibration, num_real)
        supernet.load_timm(weights)
    given: list[str] = []
    if any(not name.startswith("head.") for name in missing):
        calibration = watch(weights, space, images, device)
        given += start_operators(dict(supernet.named_parameters()), calibration, space.backbone)
        given += fit_operators(supernet, first_batches(images, device), gains=True)
    if "head.weight" in missing:
        given += fit_head(supernet, images)
    if fits:
        fit_cuts(supernet, first_batches(images, device, FIRST_IMAGES))
        fit_depths(supernet, first_batches(images, device))
    return sorted(missing.difference(given))


def _identities(weights: Weights, space: SearchSpace) -> dict[str, torch.Tensor]:
    """Convolutions that change nothing, for the feed-forwards of a plain ViT that may have one in the space."""
    found: dict[str, torch.Tensor] = {}
    for i, domain in enumerate(space.layers):
        names = [f"blocks.{i}.mlp.{part}" for part in ("fc1.bias", "dwconv.weight", "dwconv.bias")]
        if True in domain.ffn_conv and names[0] in weights and names[1] not in weights:
            bias = torch.zeros_like(weights[names[0]])
            kernel = bias.new_zeros(len(bias), 1, 3, 3)
            kernel[:, :, 1, 1] = 1
            found |= dict(zip(names[1:], (kernel, bias), strict=True))
    return found


def _fills(supernet: Supernet, weights: Weights) -> bool:
    """Whether the start has the depth and all sizes of the supernet: what else there is knows nothing."""
    if supernet.space.walk.grows:
        return False
    stored = {
        name: value.shape for name, value in supernet.dense().state_dict().items() if not name.startswith("head.")
    }
    return stored == {name: value.shape for name, value in weights.items() if not name.startswith("head.")}


def check_init(space: SearchSpace, spec: str) -> WeightSource | None:
    """Find out, before anything is written, whether `warm_start` can begin; raises what it raises.

    Returns the run that the weights are of, if they are a run's.
    """
    if not (Path(spec) / MANIFEST).is_file():
        Supernet(space).load_timm(initial_weights(spec, space.backbone))
        return None
    run = RunDirectory.open(Path(spec))
    if space.num_classes_from_data:
        space = space.with_num_classes(len(run.manifest.class_names))
    copy_supernet(Supernet(space), run.path)
    digest = run.manifest.supernet_digest
    assert digest is not None, "its weights are there"
    whole = space_of_run(run)
    return WeightSource(run=run.name, space=whole.name, space_digest=whole.digest, supernet_digest=digest)


def copy_supernet(supernet: Supernet, path: Path) -> None:
    """Fill a supernet with the trained weights of a run whose space has all its choices, and perhaps more.

    Raises:
        ConfigError: The run's supernet is not trained to its end, or holds NaN.
        CheckpointError: Its space lacks choices; names them all.
    """
    run = RunDirectory.open(path)
    weights = trained_weights(run)
    if weights is None:
        raise ConfigError(f"--init {path}: its supernet is not trained to the end", hint="let that run go on first")
    check_finite(weights, f"--init {path}")
    space, whole = supernet.space, space_of_run(run)
    if lacking := why_not_within(space, whole):
        lines = "\n".join(f"  {line}" for line in lacking)
        raise CheckpointError(
            f"--init {path}: its supernet has no weights for all of {space.name}, being of {whole.name}:\n{lines}",
            hint="a space may have fewer choices than that run's, or other constraints, rules and seeds; not more",
        )
    supernet.load_slices(weights)


def watch(
    weights: Weights, space: SearchSpace, images: ImageSet, device: torch.device, most: int = CALIBRATION_IMAGES
) -> Calibration:
    """Run the plain ViT of these weights over the first images."""
    return calibrate(plain_subnet(weights, space.backbone).to(device), first_batches(images, device, most))


def _num_real(space: SearchSpace, num_heads: int) -> int | None:
    """Real heads of the space's most hallucinated layers of so many heads; None where none is hallucinated."""
    ratio = max(max(domain.hallucination_ratio) for domain in space.layers)
    derived = hallucinated_heads(num_heads, ratio)
    return num_heads - derived if derived else None
