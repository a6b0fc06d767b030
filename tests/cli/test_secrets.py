"""A whole job with a secret and telling paths: neither is where it does not belong, in any byte of any file."""

import base64
import contextlib
import gzip
import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from small_runs import QUICK, ROOT
from small_spaces import TINY

pytestmark = pytest.mark.slow

SECRET, USER = "S3CR3Tpass", "alicesmith"
SHARED = ("report.html", "front.csv", "front.json", "figures/front.png", "figures/front.pdf")


def contents(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """The bytes of a file, and those of what is packed in it."""
    yield name, data
    if data.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.namelist():
                yield from contents(f"{name}/{member}", archive.read(member))
    elif data.startswith(b"\x1f\x8b"):
        yield from contents(f"{name}/gzip", gzip.decompress(data))


def found_in(paths: list[Path], words: list[str]) -> list[tuple[str, str]]:
    found = []
    for path in paths:
        for name, data in contents(str(path), path.read_bytes()):
            for word in words:
                forms = [word.encode(), word.encode("utf-16-le")]
                forms += [base64.b64encode(b"\0" * shift + word.encode())[4:-4] for shift in range(3)]
                found += [(name, word) for form in forms if len(form) > 4 and form in data]
    return found


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("x") / "home" / USER
    for label in ("a", "b"):
        folder = home / "my images" / label
        folder.mkdir(parents=True)
        for i in range(40):
            pixels = np.random.default_rng([i, label == "a"]).integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    (home / "tiny.yaml").write_text(TINY)
    return home


def search(home: Path, *words: object, cwd: Path, code: int = 0, **variables: str) -> str:
    """Both streams of `python search.py ...`; the command lines of its processes are looked at on the way."""
    environment = {**os.environ, "HOME": str(home), "USER": USER, "LOGNAME": USER, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, ROOT / "search.py", *map(str, words)],
        cwd=cwd,
        env=environment | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    shown: list[bool] = []  # at every look
    while True:
        try:
            said, _ = process.communicate(timeout=2)
            break
        except subprocess.TimeoutExpired:
            with contextlib.suppress(psutil.Error):  # one of them has just ended
                me = psutil.Process(process.pid)
                words_now = [word for one in (me, *me.children(recursive=True)) for word in one.cmdline()]
                shown.append(any(SECRET in word for word in words_now))
    assert process.returncode == code, said
    assert SECRET not in said
    # Python shows what was typed until our first line runs, which takes seconds on a busy machine; then nothing does.
    hidden = shown.index(False) if False in shown else min(len(shown), 5)
    assert not any(shown[hidden:])
    return said


def test_a_whole_job_leaks_neither_a_password_nor_who_ran_it(home, tmp_path):
    run, elsewhere = home / "work on it" / "r", tmp_path / "elsewhere"
    elsewhere.mkdir()
    url = f"sqlite:///file:{tmp_path}/db.sqlite?uri=true&password={SECRET}"
    data = f"folder:{home / 'my images'}"
    whole = [home / "tiny.yaml", "--data", data, "--run", run, *QUICK, "--workers=1", "--tensorboard"]
    search(home, "run", *whole, f"--storage={url}", cwd=elsewhere)
    recorded = (run / "manifest.json").read_text()
    assert "--storage=$NAS_STORAGE" in recorded
    said = search(home, "run", *whole, "--storage", "$NAS_STORAGE", cwd=elsewhere, code=2)
    assert "no variable NAS_STORAGE" in said
    assert "finished already" in search(
        home, "run", *whole, "--storage", "$NAS_STORAGE", cwd=elsewhere, NAS_STORAGE=url
    )
    search(home, "status", run, cwd=elsewhere)
    search(home, "front", run, "--format=table", cwd=elsewhere)
    search(home, "report", run, cwd=elsewhere)
    bundle, pack = home / "given" / "bundle", home / "given" / "pack"
    search(home, "export", run, "--pick=knee", "--to", bundle, cwd=elsewhere)
    search(home, "latency", "pack", run, "--to", pack, cwd=elsewhere)

    assert found_in(files(home), [SECRET]) == []
    shared = [*files(bundle), *files(pack), *(run / name for name in SHARED if (run / name).exists())]
    assert len(shared) > 12
    telling = [USER, "work on it", str(tmp_path), str(ROOT), str(Path(sys.prefix).resolve()), "/home/", "/root/"]
    assert found_in(shared, telling) == []


@pytest.mark.parametrize("storage", [f"postgresql:/me:{SECRET}@h/x", f"postgresql://me:a@{SECRET} b@:x/x"])
def test_a_mistyped_storage_leaks_nothing_not_even_into_a_traceback(home, tmp_path, storage):
    said = search(home, "--debug", "run", home / "tiny.yaml", "--storage", storage, cwd=tmp_path, code=1)
    assert "Traceback" in said
    assert "storage postgresql:/" in said
    assert files(tmp_path) == []
