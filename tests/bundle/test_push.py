"""A bundle goes to the hub whole and as it was compared, or not at all; nobody sees the token."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from bundles import ROOT, export, logits_of, small_subnet
from small_runs import command

from nas.base.errors import ConfigError, ExportError, HubError
from nas.bundle.push import push_bundle

TOKEN = "hf_" + "x" * 34
FILES = {"README.md", "architecture.json", "config.json", "metrics.json", "model.safetensors", "provenance.json"}


class Hub(BaseHTTPRequestHandler):
    """The few calls of the hub that a push makes; it keeps what it was sent."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        place = f"http://{self.headers['Host']}"
        if (refusal := self.server.refusal) is not None:
            self.answer({"error": refusal[1]}, refusal[0])
        elif self.path == "/api/repos/create":
            self.server.made.append(json.loads(body))
            self.answer({"url": f"{place}/me/my_vit"})
        elif self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif self.path == "/api/models/me/my_vit/preupload/main":
            paths = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]
            self.answer({"files": modes})
        elif self.path == "/api/models/me/my_vit/commit/main":
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    value = line["value"]
                    assert value["encoding"] == "base64"
                    self.server.files[value["path"]] = base64.b64decode(value["content"])
            self.answer({"commitUrl": f"{place}/me/my_vit/commit/0123", "commitOid": "0123"})
        else:
            self.answer({"error": f"unexpected {self.path}"}, 404)

    def do_GET(self) -> None:
        content = self.server.files.get(self.path.removeprefix("/me/my_vit/resolve/main/"))
        if content is None:
            self.answer({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
        else:
            self.answer(content, 200, {"ETag": hashlib.sha1(content).hexdigest(), "X-Repo-Commit": "0123456789" * 4})

    do_HEAD = do_GET  # noqa: N815

    def answer(self, values: Any, code: int = 200, heads: Mapping[str, str] | None = None) -> None:
        content = values if isinstance(values, bytes) else json.dumps(values).encode()
        self.send_response(code)
        for name, value in {**(heads or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nothing on stderr."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A hub of this machine, which the client takes for the real one; somebody is logged in."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked, server.made, server.files, server.refusal = [], [], {}, None
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    export(small_subnet(), tmp_path / "vit", license="cc-by-4.0")
    return tmp_path / "vit"


def test_a_push_makes_the_repository_and_commits_the_files_as_they_are(hub: Any, bundle: Path) -> None:
    (bundle / ".env").write_text("password=hunter2")  # not of the bundle
    done = command("push", bundle, "--repo", "me/my_vit", "--private", "--format", "json")
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout)["url"].endswith("/me/my_vit/commit/0123")
    assert (hub.made[0]["name"], hub.made[0]["organization"]) == ("my_vit", "me")
    assert "private" in hub.made[0].values() or hub.made[0]["private"]  # as the client's release has it
    assert set(hub.files) == FILES
    for name in FILES - {"README.md"}:
        assert hub.files[name] == (bundle / name).read_bytes()
    card = (bundle / "README.md").read_text()
    assert hub.files["README.md"].decode() == card.replace("USER/NAME", "me/my_vit") != card
    assert {token for _, token in hub.asked} == {f"Bearer {TOKEN}"}
    assert TOKEN not in done.stdout + done.stderr
    assert "no licence" not in done.stderr


STRANGER = """
import nas
import timm
import torch

model = timm.create_model("hf-hub:me/my_vit", pretrained=True).eval()
print(*model(torch.ones(1, 3, 16, 16))[0].tolist())
"""


@pytest.mark.slow
def test_what_the_program_pushed_a_stranger_loads_from_the_hub(hub: Any, bundle: Path, tmp_path: Path) -> None:
    about = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    about |= {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(tmp_path / "cache")}

    def run(*words: str, **more: str) -> str:
        done = subprocess.run([sys.executable, *words], env=about | more, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    told = run("-m", "nas", "-q", "push", str(bundle), "--repo", "me/my_vit", HF_TOKEN=TOKEN)
    assert (set(hub.files), TOKEN in told) == (FILES, False)
    logits = logits_of(small_subnet(), torch.ones(1, 3, 16, 16))[0]
    assert [float(word) for word in run("-c", STRANGER).split()] == pytest.approx(logits.tolist())


def test_a_dry_run_lists_the_files_and_asks_nobody(hub: Any, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    found = push_bundle(bundle, "me/my_vit", private=False, dry_run=True)
    assert {row["file"] for row in found["files"]} == FILES
    assert (found["url"], found["license"], hub.asked) == (None, "cc-by-4.0", [])
    done = command("push", bundle, "--repo", "me/my_vit", "--dry-run")
    assert done.code == 0
    assert "model.safetensors" in done.stdout


def test_a_bundle_without_a_licence_goes_with_a_word_on_it(hub: Any, tmp_path: Path) -> None:
    export(small_subnet(), tmp_path / "vit")
    done = command("push", tmp_path / "vit", "--repo", "me/my_vit")
    assert (done.code, set(hub.files)) == (0, FILES)
    assert "no licence is named" in done.stderr


@pytest.mark.parametrize("damage", ["weights", "never compared", "another network", "no card"])
def test_what_is_not_the_bundle_that_was_compared_is_not_pushed(damage: str, hub: Any, bundle: Path) -> None:
    table = json.loads((bundle / "metrics.json").read_text())
    if damage == "weights":
        content = bytearray((bundle / "model.safetensors").read_bytes())
        content[-1] ^= 1
        (bundle / "model.safetensors").write_bytes(content)
    elif damage == "never compared":
        del table["formats"]["timm"]["max_delta"]
    elif damage == "another network":
        table["digest"] = "0" * 12
    else:
        (bundle / "README.md").unlink()
    (bundle / "metrics.json").write_text(json.dumps(table))
    with pytest.raises(ExportError, match="1 difference"):
        push_bundle(bundle, "me/my_vit", private=False, dry_run=False)
    assert hub.asked == []


@pytest.mark.parametrize("place", ["vit/README.md", "nosuch", "."])
def test_where_no_bundle_is_the_message_is_that_of_predict(place: str, bundle: Path, tmp_path: Path) -> None:
    done = command("push", tmp_path / place, "--repo", "me/my_vit")
    assert (done.code, done.stdout) == (2, "")
    assert f"{tmp_path / place}: no bundle, there is no metrics.json" in done.stderr
    assert "hint: give a folder that `export` wrote" in done.stderr


def test_a_link_out_of_the_folder_is_not_followed(hub: Any, bundle: Path, tmp_path: Path) -> None:
    (bundle / "README.md").rename(tmp_path / "secret")
    (bundle / "README.md").symlink_to(tmp_path / "secret")
    with pytest.raises(ConfigError, match=r"README\.md"):
        push_bundle(bundle, "me/my_vit", private=False, dry_run=False)
    assert hub.asked == []


@pytest.mark.parametrize("repo", ["my_vit", "me/a/b", "me/my vit", "me/-a", "me/a--b", "me/a.git", ""])
def test_a_name_that_the_hub_has_not_is_refused(repo: str, hub: Any, bundle: Path) -> None:
    with pytest.raises(ConfigError, match="USER/NAME"):
        push_bundle(bundle, repo, private=False, dry_run=True)


def test_a_refusal_of_the_hub_is_told_in_its_words(hub: Any, bundle: Path) -> None:
    hub.refusal = 403, "You don't have the rights to create a model under the namespace"
    done = command("push", bundle, "--repo", "me/my_vit")
    assert done.code == 1
    assert "answers 403 for me/my_vit: You don't have the rights" in done.stderr
    assert TOKEN not in done.stdout + done.stderr


def test_without_a_network_or_a_token_a_message_says_so(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(HubError, match=r"http://127\.0\.0\.1:9 cannot be reached"):
        push_bundle(bundle, "me/my_vit", private=False, dry_run=False)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="there is no token"):
        push_bundle(bundle, "me/my_vit", private=False, dry_run=False)
