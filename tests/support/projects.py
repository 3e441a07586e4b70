"""Directories with a Dockerfile, and what building them says and makes."""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from support.engine import UnixConnection

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.engine import EngineProcess
    from support.programs import Outcome

CLASSIC = {"DOCKER_BUILDKIT": "0"}


class Project:
    """A build context."""

    def __init__(self, folder: Path, engine: EngineProcess) -> None:
        self.folder = folder
        self.engine = engine

    def write(self, dockerfile: str, **files: str | bytes) -> Project:
        """Write the Dockerfile and files; ``__`` in a name is a slash, ``_`` a dot."""
        self.file("Dockerfile", dockerfile)
        for name, data in files.items():
            self.file(name.replace("__", "/").replace("_", "."), data)
        return self

    def file(self, name: str, data: str | bytes, mode: int = 0o644) -> Path:
        """Write one file."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        path.chmod(mode)
        return path

    def cli(self, cli: Callable[..., Outcome], *flags: str, **options: object) -> Outcome:
        """Build with a command line."""
        env = {**os.environ, **CLASSIC}
        return cli("build", *flags, str(self.folder), env=env, **options)

    def archive(self) -> bytes:
        """Return the context as clients send it."""
        body = io.BytesIO()
        with tarfile.open(fileobj=body, mode="w") as archive:
            for name in sorted(os.listdir(self.folder)):
                archive.add(self.folder / name, name)
        return body.getvalue()

    def build(self, body: bytes | None = None, **query: object) -> Built:
        """Build through the API."""
        return post_build(self.engine, self.archive() if body is None else body, **query)

    def run(self, image: str, script: str) -> str:
        """Run a shell script in an image and return what it printed."""
        done = self.engine.docker(
            *("run", "--rm", "--network", "none", "--entrypoint", "/bin/sh", image, "-c", script)
        )
        assert done.code == 0, str(done)
        return done.out

    def inspect(self, image: str) -> dict[str, object]:
        """Return the document about an image."""
        status, document = self.engine.request("GET", f"/images/{image}/json")
        assert status == 200, document
        assert isinstance(document, dict)
        return document

    def history(self, image: str) -> list[str]:
        """Return what its steps say of themselves, the last first."""
        status, document = self.engine.request("GET", f"/images/{image}/history")
        assert status == 200, document
        assert isinstance(document, list)
        return [step["CreatedBy"] for step in document]


@dataclass(frozen=True, kw_only=True)
class Built:
    """What a build answered."""

    status: int
    messages: list[dict[str, object]]

    @property
    def text(self) -> str:
        """Everything that people see."""
        return "".join(str(message.get("stream", "")) for message in self.messages)

    @property
    def error(self) -> str:
        """What went wrong, "" for nothing."""
        last = self.messages[-1] if self.messages else {}
        return str(last.get("error") or last.get("message") or "")

    @property
    def image(self) -> str:
        """The id of the image."""
        ids = [m["aux"]["ID"] for m in self.messages if "aux" in m]  # type: ignore[index]
        assert ids, self.messages
        return str(ids[-1])

    @property
    def cached(self) -> int:
        """How many steps were not done again."""
        return self.text.count(" ---> Using cache\n")


def post_build(engine: EngineProcess, body: bytes, **query: object) -> Built:
    """Send a context."""
    connection = UnixConnection(engine.socket)
    pairs = [
        (name, one if isinstance(one, str) else json.dumps(one))
        for name, value in query.items()
        for one in (value if isinstance(value, tuple) else (value,))
    ]
    try:
        headers = {"Content-Type": "application/x-tar"}
        connection.request("POST", f"/v1.41/build?{urlencode(pairs)}", body, headers)
        response = connection.getresponse()
        lines = response.read().splitlines()
    finally:
        connection.close()
    messages = [json.loads(line) for line in lines if line.strip()]
    return Built(status=response.status, messages=messages)


def clear_images(engine: EngineProcess) -> None:
    """Remove what builds have made."""
    engine.remove_containers()
    _, images = engine.request("GET", "/images/json")
    assert isinstance(images, list)
    for image in images:
        if not {"busybox:latest", "host:latest"} & set(image["RepoTags"] or ()):
            engine.request("DELETE", f"/images/{image['Id']}?force=1")
    _, left = engine.request("GET", "/images/json?all=1")
    assert isinstance(left, list)
    assert all(set(image["RepoTags"]) <= {"busybox:latest", "host:latest"} for image in left), left


def remains(engine: EngineProcess) -> list[str]:
    """Return what builds have left that are over."""
    folder = engine.data_root / "builds"
    left = [str(path) for path in folder.iterdir()] if folder.exists() else []
    ingest = engine.data_root / "content/ingest"
    return left + [str(path) for path in ingest.iterdir()] if ingest.exists() else left


def everything(engine: EngineProcess, image: str, since: float) -> bytes:
    """Return all that an engine has on disk, and has to say of an image."""
    found = [
        path.read_bytes()
        for root in (engine.base, engine.data_root)
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink()
    ]
    paths = (
        *(f"/images/{image}/json", f"/images/{image}/history", "/system/df", "/images/json?all=1"),
        f"/events?since={since}&until={time.time()}",
    )
    return b"".join([*found, *(str(engine.request("GET", path)).encode() for path in paths)])
