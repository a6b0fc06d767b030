"""What others would do on a table that was measured whole: LINAS, and BoTorch's qLogNEHVI.

Both begin with 24 uniform draws, go on in batches of 8, know MACs exactly as ours does, and rank every architecture
that is left (LINAS) or those near the front and 512 others (qLogNEHVI), which only a table allows: the inner search
of neither can fail.
"""

from collections.abc import Callable

import moocore
import numpy as np
from numpy.typing import NDArray
from replay_evaluator import ReplayTable, all_architectures
from sklearn.svm import SVR

FIRST, BATCH = 24, 8
OTHERS = 512
Floats = NDArray[np.float64]


def search_by_opponent(table: ReplayTable, name: str, seed: int, trials: int) -> list[int]:
    """Rows of a table in the order in which they were measured."""
    rng = np.random.default_rng([seed, 77])
    architectures = list(all_architectures(table.space))
    rows = np.array([table.row(architecture) for architecture in architectures])
    encoded = [table.space.encode(architecture) for architecture in architectures]
    choices = {gene: values for gene, values in table.space.choices().items() if len(values) > 1}
    genes = np.array([[values.index(code[gene]) for gene, values in choices.items()] for code in encoded])
    top1, macs = table.top1()[rows], table.macs[rows].astype(float)
    measured = [int(i) for i in rng.permutation(len(rows))[:FIRST]]
    while len(measured) < trials:
        left = np.setdiff1d(np.arange(len(rows)), measured)
        measured += OPPONENTS[name](genes, top1, macs, measured, left, rng)
    return [int(rows[i]) for i in measured[:trials]]


def _linas(
    genes: NDArray[np.int64],
    top1: Floats,
    macs: Floats,
    measured: list[int],
    left: NDArray[np.int64],
    rng: np.random.Generator,
) -> list[int]:
    """As in DyNAS-T (arXiv 2205.10358): support vectors on one-hot genes; the best fronts of what they predict."""
    hot = np.concatenate([genes[:, [i]] == np.unique(genes[:, i]) for i in range(genes.shape[1])], axis=1).astype(float)
    middle, scale = top1[measured].mean(), top1[measured].std() or 1.0
    surrogate = SVR(C=10.0, epsilon=0.01, gamma="scale").fit(hot[measured], (top1[measured] - middle) / scale)
    ranks = moocore.pareto_rank(np.stack([-surrogate.predict(hot[left]), macs[left]], axis=1))
    order = np.lexsort((rng.random(len(left)), ranks))
    return [int(i) for i in left[order[:BATCH]]]


def _qlognehvi(
    genes: NDArray[np.int64],
    top1: Floats,
    macs: Floats,
    measured: list[int],
    left: NDArray[np.int64],
    rng: np.random.Generator,
) -> list[int]:
    """Ament et al. 2023, by BoTorch (to be installed): a process with a length for every gene; MACs are known."""
    import torch
    from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import ModelList, SingleTaskGP
    from botorch.models.deterministic import GenericDeterministicModel
    from botorch.optim import optimize_acqf_discrete
    from botorch.sampling import SobolQMCNormalSampler
    from gpytorch.mlls import ExactMarginalLogLikelihood

    torch.manual_seed(int(rng.integers(2**31)))
    scaled = genes / np.maximum(genes.max(axis=0), 1)
    cost = np.log(macs)
    cost = (cost - cost.min()) / np.ptp(cost)
    inputs = torch.tensor(np.column_stack([scaled, cost]))
    middle, scale = top1[measured].mean(), top1[measured].std() or 1.0
    process = SingleTaskGP(inputs[measured], torch.tensor((top1[measured] - middle) / scale)[:, None])
    fit_gpytorch_mll(ExactMarginalLogLikelihood(process.likelihood, process))
    exact = GenericDeterministicModel(lambda x: -torch.exp(x[..., -1:] * np.ptp(np.log(macs))), num_outputs=1)
    promise = qLogNoisyExpectedHypervolumeImprovement(
        model=ModelList(process, exact),
        ref_point=[(10.0 - middle) / scale, -1.1 * float(macs.max() / macs.min())],
        X_baseline=inputs[measured],
        sampler=SobolQMCNormalSampler(torch.Size([64])),
        prune_baseline=True,
    )
    front = np.array(measured)[moocore.is_nondominated(np.stack([-top1[measured], macs[measured]], axis=1))]
    near = [i for i in left if ((genes[front] != genes[i]).sum(axis=1) <= 2).any()]
    candidates = np.union1d(near, rng.permutation(left)[:OTHERS]).astype(int)
    chosen, _ = optimize_acqf_discrete(promise, BATCH, inputs[candidates], max_batch_size=512, unique=True)
    found = [int(candidates[int((inputs[candidates] - x).abs().sum(dim=1).argmin())]) for x in chosen]
    return list(dict.fromkeys(found))


OPPONENTS: dict[str, Callable[..., list[int]]] = {"linas": _linas, "qlognehvi": _qlognehvi}
