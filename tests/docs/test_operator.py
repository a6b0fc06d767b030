"""The operator of docs/operators.md, put into a copy of the package: the laws hold, and the page counts right."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from readme_commands import FENCED, ROOT

PAGE = (ROOT / "docs" / "operators.md").read_text()
(DIFF,) = [block for _, file, block in FENCED.findall(PAGE) if file == "max_pool.diff"]

PICKED_UP = (
    "tests/arch/operators/test_operators.py",
    "tests/model/test_supernet.py::test_extracted_subnet_equals_the_supernet_bit_for_bit",
    "tests/model/test_supernet.py::test_gradients_reach_exactly_the_slices_in_use",
    "tests/arch/test_cost.py::test_macs_are_half_of_the_counted_flops_and_params_are_all_of_them[class_token-meta]",
    "tests/arch/test_memory.py::test_peak_activation_memory_is_that_of_the_live_storages",
)
ALL_HERE = ("-n", "0", "-m", "")
"""In this process, slow ones too."""

LAWS = """
import sys
from pathlib import Path
import numpy as np, onnxruntime, torch
from torch.utils.flop_counter import FlopCounterMode
import nas
from nas.settings import TrainConfig
from nas.latency.onnx_file import trace, write_onnx
from nas.space import parse_space
from nas.training.trainer import SupernetTrainer
from small_runs import few_digits
from small_spaces import randomise

SPACE = parse_space('''
name: pooled
backbone: {image_size: 8, patch_size: 2, num_classes: 10, head_dim: 8}
embed_dim: [16, 24]
depth: 3
layers: {reducer: max_pool, num_heads: [1, 2], mlp_ratio: [1, 2]}
overrides:
  - {layers: 1, num_tokens: 9}
  - {layers: 2, num_tokens: [4, 1]}
''', "pooled.yaml")
trainer = SupernetTrainer(
    nas.Supernet(SPACE), few_digits().train, TrainConfig(epochs=1, batch_size=32, warmup_epochs=0, lr=1e-2), seed=0,
    device=torch.device("cpu"), precision="fp32", directory=Path("weights"),
)
supernet = trainer.run()
shares = [p for name, p in supernet.named_parameters() if name.endswith("reducer.share")]
assert len(shares) == 2 and all(p.abs().min() > 0 for p in shares), "training moves it from zero, in every channel"
randomise(supernet)
supernet.eval()
images = torch.randn(5, 3, 8, 8)
for seed in range(20):
    architecture = SPACE.sample(np.random.default_rng(seed))
    assert [layer.reducer for layer in architecture.layers] == [None, "max_pool", "max_pool"]
    subnet = supernet.extract(architecture)
    with torch.no_grad():
        assert torch.equal(supernet(images, architecture), subnet(images))
        with FlopCounterMode(display=False) as counted:
            subnet.to("meta")(images[:1].to("meta"))
    assert 2 * nas.cost.macs(architecture, SPACE.backbone) == counted.get_total_flops()
    assert nas.cost.params(architecture, SPACE.backbone) == sum(p.numel() for p in subnet.parameters())
subnet = supernet.extract(SPACE.largest())
write_onnx(trace(subnet), Path("a.onnx"))
session = onnxruntime.InferenceSession("a.onnx", providers=["CPUExecutionProvider"])
(logits,) = session.run(["logits"], {"images": images.numpy()})
with torch.no_grad():
    np.testing.assert_allclose(logits, subnet(images).numpy(), rtol=0, atol=1e-4)
"""


@pytest.fixture(scope="module")
def changed(tmp_path_factory) -> Path:
    """A copy of package and tests with the change of the page."""
    folder = tmp_path_factory.mktemp("changed")
    for part in ("nas", "tests", "search_spaces"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    subprocess.run(["git", "apply", "-"], input=DIFF, text=True, cwd=folder, check=True)
    return folder


def python(folder: Path, *words: str) -> None:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{folder}{os.pathsep}{folder / 'tests' / 'helpers'}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_the_page_counts_the_lines_of_its_change():
    added = len(re.findall(r"^\+(?!\+\+ )", DIFF, flags=re.MULTILINE))
    removed = len(re.findall(r"^-(?!-- )", DIFF, flags=re.MULTILINE))
    assert (DIFF.count("--- /dev/null\n+++ b/"), DIFF.count("+++ b/"), removed) == (2, 2, 0)
    assert f"It is {added} lines in two new files" in PAGE


@pytest.mark.slow
def test_the_operator_of_the_page_keeps_the_laws(changed):
    python(changed, "-W", "error", "-c", LAWS)


@pytest.mark.slow
def test_the_property_tests_pick_it_up_by_themselves(changed):
    python(changed, "-m", "pytest", *ALL_HERE, "-p", "no:cacheprovider", "--durations=0", *PICKED_UP)


@pytest.mark.slow
def test_they_would_find_a_forgotten_cost(changed, tmp_path):
    folder = tmp_path / "forgotten"
    shutil.copytree(changed, folder)
    path = folder / "nas" / "arch" / "operators" / "max_pool.py"
    text = path.read_text()
    assert text.count('("max_pool", 0, s.D)') == 1
    path.write_text(text.replace('("max_pool", 0, s.D)', '("max_pool", 0, 0)'))
    with pytest.raises(AssertionError, match="params"):
        python(folder, "-m", "pytest", *ALL_HERE, "-p", "no:cacheprovider", PICKED_UP[3])
