"""Artifacts that refer to images: listed, and moved with the images where that is asked for."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import tarfile
from typing import TYPE_CHECKING

import pytest

from support.archives import blobs_of
from support.programs import find
from support.registries import Answer, Front, Layout, Registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.engine import EngineProcess

pytestmark = pytest.mark.berth_only
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
SIGNATURE, BILL = "application/x.signature", "application/x.bill"


class Signed:
    """A registry with an image, a bill of its materials and a signature of that."""

    def __init__(self, registry: Registry, folder: Path) -> None:
        self.registry = registry
        layout = Layout(folder)
        image = layout.image("amd64", ("hello", b"hello\n"))
        layout.finish(image)
        registry.push(layout.folder, "signed:1")
        self.subject = str(image["digest"])
        self.bill = self.attach(self.subject, BILL, b"materials")
        self.signature = self.attach(self.bill, SIGNATURE, b"signature")

    def attach(self, subject: str, kind: str, payload: bytes) -> str:
        """Put an artifact as a client of before does; return its digest."""
        blobs = [self._blob(b"{}", EMPTY), self._blob(payload, kind)]
        target = {"mediaType": MANIFEST, "digest": subject, "size": 1}
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind}
        manifest |= {"config": blobs[0], "layers": blobs[1:], "subject": target}
        data = json.dumps(manifest).encode()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self._request("PUT", f"manifests/{digest}", data, MANIFEST)
        entry = {"mediaType": MANIFEST, "digest": digest, "size": len(data), "artifactType": kind}
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}
        tag = subject.replace(":", "-")
        self._request("PUT", f"manifests/{tag}", json.dumps(index).encode(), INDEX)
        return digest

    def digits(self) -> set[str]:
        """Return what the artifacts' manifests are called in a store."""
        return {digest.partition(":")[2] for digest in (self.bill, self.signature)}

    def _blob(self, data: bytes, kind: str) -> dict[str, object]:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        place = self._request("POST", "blobs/uploads/").removeprefix(f"http://{self.registry.host}")
        self._send("PUT", f"{place}&digest={digest}", data, "application/octet-stream")
        return {"mediaType": kind, "digest": digest, "size": len(data)}

    def _request(self, method: str, path: str, data: bytes = b"", kind: str = "") -> str:
        return self._send(method, f"/v2/signed/{path}", data, kind)

    def _send(self, method: str, path: str, data: bytes, kind: str) -> str:
        connection = http.client.HTTPConnection(self.registry.host)
        connection.request(method, path, data, {"Content-Type": kind} if kind else {})
        answer = connection.getresponse()
        assert answer.status in (201, 202), answer.read()
        location = answer.getheader("Location", "")
        connection.close()
        return location


@pytest.fixture
def signed(tmp_path: Path) -> Iterator[Signed]:
    find("docker-registry")
    with contextlib.closing(Registry(tmp_path / "registry")) as registry:
        yield Signed(registry, tmp_path / "image")


@pytest.fixture(autouse=True)
def _no_image_stays(engine: EngineProcess) -> Iterator[None]:
    yield
    for image in engine.request("GET", "/images/json")[1]:
        for name in [*image["RepoTags"], *image["RepoDigests"]]:
            if name not in ("busybox:latest", "host:latest"):
                engine.request("DELETE", f"/images/{name}?force=1")


def listed(engine: EngineProcess, name: str, *more: str) -> list[str]:
    form = "{{.Type}} {{.Digest}}"
    done = engine.berth("manifest", "referrers", "--format", form, *more, name)
    assert done.code == 0, str(done)
    return done.lines


def test_referrers_are_listed_by_type(engine: EngineProcess, signed: Signed) -> None:
    name = f"{signed.registry.host}/signed:1"
    assert listed(engine, name) == [f"{BILL} {signed.bill}"]
    assert listed(engine, name, "--artifact-type", SIGNATURE) == []
    repository = name.removesuffix(":1")
    assert listed(engine, f"{repository}@{signed.bill}") == [f"{SIGNATURE} {signed.signature}"]
    table = engine.berth("manifest", "referrers", name)
    assert table.lines[0].split() == ["ARTIFACT", "TYPE", "DIGEST", "SIZE"], str(table)


def test_a_registry_that_knows_the_api_is_asked_by_it(
    engine: EngineProcess, signed: Signed
) -> None:
    entry = {"mediaType": MANIFEST, "digest": signed.bill, "size": 1, "artifactType": "by/api"}
    body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).encode()
    with contextlib.closing(Front(signed.registry)) as front:
        path = f"/v2/signed/referrers/{signed.subject}"
        front.rules.append(
            lambda asked, _: Answer(200, {"Content-Type": INDEX}, body) if asked == path else None
        )
        assert listed(engine, f"{front.host}/signed:1") == [f"by/api {signed.bill}"]
        tag = signed.subject.replace(":", "-")
        assert not any(asked.endswith(tag) for asked, _ in front.requests)


def test_referrers_go_with_an_image_from_registry_to_registry(
    engine: EngineProcess, signed: Signed, tmp_path: Path
) -> None:
    name = f"{signed.registry.host}/signed:1"
    pulled = engine.berth("pull", "--referrers", name)
    assert pulled.code == 0, str(pulled)
    assert f"Pulled referrer {signed.bill} ({BILL})" in pulled.out
    assert f"Pulled referrer {signed.signature} ({SIGNATURE})" in pulled.out
    assert signed.digits() <= blobs_of(engine)
    with contextlib.closing(Registry(tmp_path / "other")) as other:
        target = f"{other.host}/moved"
        engine.berth("tag", name, f"{target}:1")
        assert engine.berth("push", f"{target}:1").code == 0
        assert listed(engine, f"{target}:1") == []
        done = engine.berth("push", "--referrers", f"{target}:1")
        assert done.code == 0, str(done)
        for _ in range(2):
            assert listed(engine, f"{target}:1") == [f"{BILL} {signed.bill}"]
            assert listed(engine, f"{target}@{signed.bill}") == [f"{SIGNATURE} {signed.signature}"]
            assert engine.berth("push", "--referrers", f"{target}:1").code == 0  # nothing twice
    assert "no problems" in engine.berth("system", "check").out


def test_referrers_are_saved_and_loaded_where_that_is_asked_for(
    engine: EngineProcess, signed: Signed, tmp_path: Path
) -> None:
    before = blobs_of(engine)
    name = f"{signed.registry.host}/signed:1"
    assert engine.berth("pull", "--referrers", name).code == 0
    plain, whole = tmp_path / "plain.tar", tmp_path / "whole.tar"
    assert engine.berth("save", "-o", str(plain), name).code == 0
    assert engine.berth("save", "--referrers", "-o", str(whole), name).code == 0
    bill = f"blobs/{signed.bill.replace(':', '/')}"
    for path, is_there in ((plain, False), (whole, True)):
        with tarfile.open(path) as archive:
            assert (bill in archive.getnames()) == is_there
    engine.berth("rmi", "-f", name)
    assert blobs_of(engine) == before
    assert engine.berth("load", "-i", str(whole)).code == 0
    assert signed.digits() <= blobs_of(engine)
    with contextlib.closing(Registry(tmp_path / "other")) as other:
        target = f"{other.host}/loaded:1"
        engine.berth("tag", name, target)
        done = engine.berth("push", "--referrers", target)
        assert done.code == 0, str(done)
        assert listed(engine, target) == [f"{BILL} {signed.bill}"]
    engine.berth("rmi", "-f", target, name)
    assert blobs_of(engine) == before


def test_without_being_asked_nothing_comes_along(engine: EngineProcess, signed: Signed) -> None:
    assert engine.docker("pull", f"{signed.registry.host}/signed:1").code == 0
    assert signed.digits().isdisjoint(blobs_of(engine))
