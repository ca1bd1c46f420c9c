"""A pipeline by hub id: fetched as safetensors alone from a server on this machine, and afterwards without it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from sd_parts import made, opened, save_pipeline, wishes

from augkit.errors import DataError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def tree_entry(folder: Path, name: str) -> dict[str, object]:
    """What the hub lists of a file."""
    return {"type": "file", "path": name, "size": (folder / name).stat().st_size, "oid": "0" * 40}


@contextmanager
def hub(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Serves a folder as the repository some/model; its address, and what was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            names = [str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()]
            if path.startswith("/api/models/some/model/tree/"):
                self.answer(json.dumps([tree_entry(folder, name) for name in names]).encode())
            elif path.startswith("/api/models/some/model"):
                files = [{"rfilename": name} for name in names]
                self.answer(json.dumps({"id": "some/model", "sha": COMMIT, "siblings": files}).encode())
            elif path.startswith("/some/model/resolve/"):
                name = path.split("/", 5)[5]
                if self.command == "GET":
                    asked.append(name)
                self.answer((folder / name).read_bytes() if (folder / name).is_file() else None)
            else:
                self.answer(None)

        def answer(self, content: bytes | None) -> None:
            self.send_response(404 if content is None else 200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(content or b"").hexdigest()}"')
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            if content and self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """With an empty cache of its own."""
    from augkit_diffusion.pipelines import quiet

    with quiet():  # imports what reads these
        import diffusers.pipelines.pipeline_utils as utils
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(utils, "HF_HUB_OFFLINE", False, raising=False)
    return monkeypatch


def serve(online: pytest.MonkeyPatch, address: str) -> None:
    """Let an address be the hub, in all the places that were told of it when its library was imported."""
    constants = "huggingface_hub.constants"
    online.setattr(f"{constants}.ENDPOINT", address)
    online.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    online.setattr("huggingface_hub.hf_api.api.endpoint", address)


def test_a_hub_id_is_fetched_once_and_only_as_safetensors(tmp_path: Path, online: pytest.MonkeyPatch) -> None:
    model = save_pipeline(tmp_path / "pipeline", checker=False)
    (model / "unet/diffusion_pytorch_model.bin").write_bytes(b"pickled")
    with hub(model) as (address, asked):
        serve(online, address)
        source = opened("sd", tmp_path, "some/model")
        assert "unet/diffusion_pytorch_model.safetensors" in asked
        assert not [name for name in asked if name.endswith(".bin")]
        images = made(source, wishes(source, 0, range(3)))
        fetched = len(asked)
        assert opened("sd", tmp_path, "some/model").identity() == source.identity() and len(asked) == fetched
    local = opened("sd", tmp_path, model)
    assert np.array_equal(images, made(local, wishes(local, 0, range(3))))
    assert opened("sd", tmp_path, "some/model").identity()["model"] == local.identity()["model"]  # the server is gone


def test_a_hub_id_with_code_of_its_own_is_refused(tmp_path: Path, online: pytest.MonkeyPatch) -> None:
    model = save_pipeline(tmp_path / "pipeline", checker=False)
    (model / "pipeline.py").write_text("raise SystemExit")  # may be fetched, is never run
    with hub(model) as (address, _):
        serve(online, address)
        with pytest.raises(DataError, match=r"pipeline\.py: code lies in this pipeline's folder"):
            opened("sd", tmp_path, "some/model")


def test_a_hub_id_without_safetensors_is_refused(tmp_path: Path, online: pytest.MonkeyPatch) -> None:
    model = save_pipeline(tmp_path / "pipeline", checker=False)
    for file in model.rglob("*.safetensors"):
        file.rename(file.with_suffix(".bin"))
    with hub(model) as (address, asked):
        serve(online, address)
        with pytest.raises(DataError, match="could not be fetched from the hub as safetensors") as caught:
            opened("sd", tmp_path, "some/model")
        assert "\n" not in str(caught.value) and not [name for name in asked if name.endswith(".bin")]
