"""docs/tutorial.md on real photographs: what it exports is measured again by a script without this package."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from readme_commands import FENCED, ROOT

PHOTOGRAPHS = Path(os.environ.get("NAS_DATA", "data")) / "caltech101-imagefolder.zip"
WITHOUT_THE_PACKAGE = (
    "import runpy, sys; sys.modules['nas'] = None; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
)


def finished(*words: str | Path, cwd: Path) -> str:
    """Standard output of a program that ended well."""
    done = subprocess.run(
        [sys.executable, *words], cwd=cwd, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not PHOTOGRAPHS.exists(), reason="no caltech101-imagefolder.zip in the folder NAS_DATA")
def test_photographs_to_an_onnx_file_whose_accuracy_is_the_one_on_its_card(tmp_path):
    with zipfile.ZipFile(PHOTOGRAPHS) as archive:
        archive.extractall(tmp_path)
    page = (ROOT / "docs" / "tutorial.md").read_text()
    (space,) = [block for _, file, block in FENCED.findall(page) if file == "patterns.yaml"]
    (tmp_path / "patterns.yaml").write_text(space)
    search = ROOT / "search.py"
    finished(
        search, "run", "patterns.yaml", "--data=folder:caltech101", "--run=r", "--epochs=2", "--trials=4",
        "--workers=0", "--precision=fp32", "--set=evaluate.final_rounds=3",
        "--set=search.objectives=[top1, macs]", cwd=tmp_path,
    )  # fmt: skip
    finished(search, "export", "r", "--pick=top1", "--to=b", "--formats=onnx", cwd=tmp_path)
    script = ROOT / "examples" / "score_onnx.py"
    printed = finished("-I", "-c", WITHOUT_THE_PACKAGE, script, "b", "caltech101/val", cwd=tmp_path)
    top1, images = printed.split()[1], printed.split()[4]
    card = (tmp_path / "b" / "README.md").read_text()
    (line,) = [line for line in card.splitlines() if line.startswith("| top-1, test |")]
    assert line.split(" | ")[1].strip("| ") == top1, (line, printed)
    assert f"test split, {int(images):,} images" in line
    assert float(top1) > 2.0, "chance is 1 %"
