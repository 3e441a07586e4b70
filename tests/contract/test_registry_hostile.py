"""Registries that lie: a clear refusal, and nothing of what they sent is kept."""

import asyncio
import contextlib
import hashlib
import json

import pytest

from berth.content.store import ContentStore
from berth.errors import BerthError, Corrupt, InvalidArgument, NotFound, Unauthorized, Unavailable
from berth.oci.image import MAX_DOCUMENT_BYTES
from berth.oci.platform import Platform
from berth.oci.reference import Reference
from berth.registry.auth import Credentials
from berth.registry.client import RegistryClient
from berth.registry.places import Endpoint
from berth.registry.session import Patience, Session
from berth.registry.transport import Transport
from support.registries import PASSWORD, USER, Answer, Front, layer

OCI = "application/vnd.oci.image"
MANIFEST, INDEX = f"{OCI}.manifest.v1+json", f"{OCI}.index.v1+json"
LAYER, DIFF_ID = layer("hello", b"hello\n")
CONFIG = json.dumps(
    {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [DIFF_ID]},
    }
).encode()


def describe(data, media_type, **more):
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return {"mediaType": media_type, "digest": digest, "size": len(data), **more}


def manifest(**more):
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": describe(CONFIG, f"{OCI}.config.v1+json"),
        "layers": [describe(LAYER, f"{OCI}.layer.v1.tar+gzip")],
        **more,
    }


@pytest.fixture
def front():
    with contextlib.closing(Front(None)) as front:
        yield front


@pytest.fixture
def content(tmp_path):
    return ContentStore(tmp_path / "content")


def serve(front, top, *, media_type=MANIFEST, blobs=(), answers=()):
    """Let the front be a registry with one document under every tag, and blobs."""
    documents = {"/v2/": Answer(200)}
    data = top if isinstance(top, bytes) else json.dumps(top).encode()
    for blob in (CONFIG, LAYER, data, *blobs):
        digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
        documents[f"/v2/hostile/blobs/{digest}"] = Answer(200, body=blob)
        documents[f"/v2/hostile/manifests/{digest}"] = Answer(
            200, {"Content-Type": media_type}, blob
        )
    documents["/v2/hostile/manifests/1"] = Answer(200, {"Content-Type": media_type}, data)
    documents.update(answers)
    front.rules.append(lambda path, _: documents.get(path, Answer(404)))


def pull(front, content):
    async def run():
        client = RegistryClient(environment={}, backoff_s=0.001)
        try:
            return await client.pull(
                Reference.parse(f"{front.host}/hostile:1"),
                platform=Platform(architecture="amd64"),
                auth=None,
                content=content,
                progress=lambda _: None,
            )
        finally:
            client.close()

    return asyncio.run(run())


def assert_refused(front, content, kind, text):
    with pytest.raises(kind, match=text) as caught:
        pull(front, content)
    assert isinstance(caught.value, BerthError)
    known = {f"sha256:{hashlib.sha256(data).hexdigest()}" for data in (CONFIG, LAYER)}
    assert set(content.digests()) <= known
    assert list(content.ingest_folder.iterdir()) == []
    assert list((content.ingest_folder.parent / "partial").iterdir()) == []


def test_what_they_serve_is_an_image_when_nothing_is_wrong(front, content):
    serve(front, manifest())
    assert pull(front, content).downloaded


def test_a_blob_that_goes_on_and_on_is_cut(front, content):
    digest = describe(LAYER, "")["digest"]
    serve(
        front,
        manifest(),
        answers={f"/v2/hostile/blobs/{digest}": Answer(200, body=LAYER + bytes(50_000_000))},
    )
    assert_refused(front, content, Corrupt, "verification failed for digest")


@pytest.mark.parametrize("difference", [-1, 1, 1 << 40])
def test_a_size_that_is_not_true_is_refused(front, content, difference):
    lying = describe(LAYER, f"{OCI}.layer.v1.tar+gzip")
    lying["size"] += difference
    serve(front, manifest(layers=[lying]))
    with pytest.raises((Corrupt, Unavailable), match=r"verification failed|unexpected EOF"):
        pull(front, content)
    assert list(content.ingest_folder.iterdir()) == []


@pytest.mark.parametrize("size", [-1, "7", None, 1 << 70])
def test_a_size_that_is_none_is_refused(front, content, size):
    lying = describe(LAYER, f"{OCI}.layer.v1.tar+gzip", size=size)
    serve(front, manifest(layers=[lying]))
    assert_refused(front, content, BerthError, ".")


@pytest.mark.parametrize("digest", ["", "sha256:../../x", "md5:00", "sha256:" + "A" * 64, "x" * 99])
def test_a_digest_that_is_none_is_refused(front, content, digest):
    serve(front, manifest(layers=[describe(LAYER, f"{OCI}.layer.v1.tar", digest=digest)]))
    assert_refused(front, content, InvalidArgument, "invalid digest")


def test_an_oversized_manifest_is_refused(front, content):
    serve(front, json.dumps(manifest()).encode() + b" " * MAX_DOCUMENT_BYTES)
    assert_refused(front, content, InvalidArgument, "manifest is larger than")


@pytest.mark.parametrize("media_type", [MANIFEST, INDEX, "", "text/plain"])
@pytest.mark.parametrize("own", [MANIFEST, INDEX, ""])
def test_a_document_that_is_an_index_and_a_manifest_is_refused(front, content, media_type, own):
    both = manifest(manifests=[], mediaType=own)
    serve(front, both, media_type=media_type)
    assert_refused(front, content, InvalidArgument, "at once")


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (manifest(mediaType=INDEX), MANIFEST),
        ({"schemaVersion": 2, "mediaType": MANIFEST, "manifests": []}, INDEX),
        ({"schemaVersion": 2, "manifests": []}, MANIFEST),
    ],
)
def test_a_document_of_another_kind_than_it_says_is_refused(front, content, document, said):
    serve(front, document, media_type=said)
    assert_refused(front, content, InvalidArgument, "at once")


def test_indexes_in_indexes_end(front, content):
    documents, inner = [], json.dumps(manifest()).encode()
    platform = {"os": "linux", "architecture": "amd64"}
    for _ in range(8):
        kind = INDEX if documents else MANIFEST
        documents.append(inner)
        entry = describe(inner, kind, platform=platform)
        inner = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).encode()
    serve(front, inner, media_type="", blobs=documents)
    assert_refused(front, content, InvalidArgument, "more than 4 levels")


def test_an_index_for_nobody_is_no_image(front, content):
    serve(front, {"schemaVersion": 2, "mediaType": INDEX, "manifests": []})
    assert_refused(front, content, NotFound, "no matching manifest for linux/amd64")


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff\xfe", b'{"schemaVersion": 2}', b"null"])
def test_a_manifest_that_is_none_is_refused(front, content, body):
    serve(front, body)
    assert_refused(front, content, BerthError, ".")


def test_redirects_without_end_are_given_up(front, content):
    digest = describe(LAYER, "")["digest"]
    path = f"/v2/hostile/blobs/{digest}"
    serve(front, manifest(), answers={path: Answer(307, {"Location": path})})
    assert_refused(front, content, Unavailable, "stopped after 10 redirects")


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x"])
def test_redirects_lead_to_the_web_only(front, content, target):
    digest = describe(LAYER, "")["digest"]
    serve(
        front,
        manifest(),
        answers={f"/v2/hostile/blobs/{digest}": Answer(307, {"Location": target})},
    )
    assert_refused(front, content, Unavailable, "redirected to")


# Whoever a registry sends clients to


@pytest.fixture
def elsewhere():
    """A server that asks everybody for a password, and would take it."""
    with contextlib.closing(Front(None)) as front:
        realm = f'Bearer realm="http://{front.host}/token",service="s"'
        front.rules += [
            lambda path, _: Answer(200, body=b'{"token": "t"}') if "/token" in path else None,
            lambda *_: Answer(401, {"WWW-Authenticate": realm}),
        ]
        yield front


@pytest.fixture
def session(front):
    """A user's session with a registry that wants no password, and gets headers from hosts.toml."""
    with contextlib.closing(Transport({})) as transport:
        headers = (("authorization", "own"), ("x-key", "own"), ("accept", "own"))
        yield Session(
            endpoint=Endpoint(url=f"http://{front.host}", headers=headers),
            reference=Reference.parse(f"{front.host}/hostile:1"),
            credentials=Credentials(username=USER, password=PASSWORD),
            transport=transport,
            patience=Patience(backoff_s=0.001),
        )


@pytest.mark.parametrize("what", ["everything", "blobs"])
def test_who_is_redirected_to_cannot_ask_for_the_password(front, elsewhere, session, what):
    def redirect(path, _):
        moved = what == "everything" or "/blobs/" in path
        return Answer(307, {"Location": f"http://{elsewhere.host}{path}"}) if moved else Answer(200)

    front.rules.append(redirect)
    session.ping()
    with pytest.raises(Unauthorized):
        session.open("blobs/x", {})
    assert elsewhere.requests
    assert not [path for path, _ in elsewhere.requests if "/token" in path]


def test_who_takes_an_upload_cannot_ask_for_the_password(elsewhere, session):
    url = f"http://{elsewhere.host}/upload"
    with pytest.raises(Unauthorized):
        session.call("POST", url, (202,), body=lambda: b"data")
    assert [path for path, _ in elsewhere.requests] == ["/upload"]


def test_a_registry_s_own_headers_stay_with_it_when_redirected(front, elsewhere, session):
    location = {"Location": f"http://{elsewhere.host}/there"}
    front.rules.append(lambda *_: Answer(307, location))
    elsewhere.rules.insert(0, lambda *_: Answer(200, body=b"data"))
    session.open("blobs/x", {"Range": "bytes=0-", "If-Match": "own"}).close()
    ((_, sent),) = front.requests
    assert {"authorization", "x-key", "if-match"} <= {name.lower() for name in sent}
    ((_, sent),) = elsewhere.requests
    known = {"host", "user-agent", "accept", "accept-encoding", "range"}
    assert {name.lower() for name in sent} == known


def test_a_registry_that_redirects_to_itself_may_ask_for_the_password(front, session):
    realm = {"WWW-Authenticate": 'Basic realm="r"'}
    front.rules += [
        lambda path, _: Answer(307, {"Location": "/there"}) if "/blobs/" in path else None,
        lambda _, headers: (
            Answer(200) if headers.get_all("Authorization")[-1] != "own" else Answer(401, realm)
        ),
    ]
    session.open("blobs/x", {}).close()
    assert [path for path, _ in front.requests][1::2] == ["/there"] * 2
