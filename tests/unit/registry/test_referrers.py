"""Referrers: listed by the API or by a tag, verified, and noted where a registry does not do that itself."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from berth.errors import Corrupt, InvalidArgument, NotFound
from berth.oci.digest import Digest
from berth.oci.image import OCI_INDEX, OCI_MANIFEST, Descriptor
from berth.registry.referrers import Attached, attach, fallback_tag, find, gather

SUBJECT = Digest.of(b"subject")
TAG = f"sha256-{SUBJECT.encoded}"


class Session:
    """A registry in memory; ``api``: it knows the referrers API."""

    def __init__(self, *, api: bool) -> None:
        self.api = api
        self.manifests: dict[str, tuple[bytes, str]] = {}
        self.asked: list[str] = []

    def url(self, path: str) -> str:
        return path

    def pages(self, path: str):
        self.asked.append(path)
        if not self.api:
            raise NotFound("page not found")
        subject = path.removeprefix("referrers/").partition("?")[0]
        found = [
            self.described(digest)
            for digest, (data, _) in self.manifests.items()
            if json.loads(data).get("subject", {}).get("digest") == subject
        ]
        for entry in found or [None]:  # a page each
            yield json.dumps({"manifests": [entry] if entry else []}).encode()

    def described(self, digest: str) -> dict[str, object]:
        data, kind = self.manifests[digest]
        more = {"artifactType": json.loads(data)["artifactType"]}
        return {"mediaType": kind, "digest": digest, "size": len(data), **more}

    def manifest(self, which: str) -> tuple[bytes, str]:
        if which not in self.manifests:
            raise NotFound("manifest unknown")
        return self.manifests[which]

    def call(self, method: str, url: str, wanted: object, *, headers, body):
        assert method == "PUT"
        which = url.removeprefix("manifests/")
        self.manifests[which] = (body(), headers["Content-Type"])
        said = {"oci-subject": str(SUBJECT)} if self.api and ":" in which else {}
        return SimpleNamespace(headers=said)


def artifact(kind: str, subject: str = SUBJECT) -> Attached:
    config = {
        "mediaType": "application/vnd.oci.empty.v1+json",
        "digest": Digest.of(b"{}"),
        "size": 2,
    }
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": kind,
        "config": config,
        "layers": [],
        "subject": {"mediaType": OCI_MANIFEST, "digest": subject, "size": 7},
    }
    data = json.dumps(document).encode()
    own = Descriptor(
        media_type=OCI_MANIFEST, digest=str(Digest.of(data)), size=len(data), artifact_type=kind
    )
    return Attached(descriptor=own, data=data, subject=subject, blobs=())


@pytest.mark.parametrize("api", [True, False])
def test_what_was_attached_is_found_by_type(api: bool) -> None:
    session = Session(api=api)
    for kind in ("a/signature", "a/bill", "a/signature"):
        attach(session, artifact(kind))
    assert sorted(one.artifact_type for one in find(session, SUBJECT)) == ["a/bill", "a/signature"]
    assert [one.artifact_type for one in find(session, SUBJECT, kind="a/bill")] == ["a/bill"]
    assert session.asked[-1] == f"referrers/{SUBJECT}?artifactType=a%2Fbill"
    assert (TAG in session.manifests) != api


def test_the_index_of_a_tag_keeps_what_else_is_in_it() -> None:
    session = Session(api=False)
    other = {"mediaType": OCI_MANIFEST, "digest": Digest.of(b"other"), "size": 5, "x": "y"}
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [other], "custom": 1}
    session.manifests[TAG] = (json.dumps(index).encode(), OCI_INDEX)
    attach(session, artifact("a/signature"))
    found = json.loads(session.manifests[TAG][0])
    assert found["manifests"][0] == other
    assert found["custom"] == 1
    assert found["manifests"][1]["artifactType"] == "a/signature"


@pytest.mark.parametrize("api", [True, False])
def test_what_refers_to_a_referrer_is_gathered_after_it(api: bool) -> None:
    session = Session(api=api)
    bill = artifact("a/bill")
    signature = artifact("a/signature", bill.descriptor.digest)
    for one in (bill, signature):
        attach(session, one)
    found = gather(session, [SUBJECT])
    assert [one.descriptor.artifact_type for one in found] == ["a/bill", "a/signature"]
    assert [one.data for one in found] == [bill.data, signature.data]


def test_nothing_refers_to_what_nobody_knows() -> None:
    assert find(Session(api=False), SUBJECT) == []
    assert gather(Session(api=True), [SUBJECT]) == []


def test_an_artifact_about_something_else_is_refused() -> None:
    session = Session(api=False)
    stranger = artifact("a/signature", Digest.of(b"another"))
    attach(session, stranger)
    session.manifests[TAG] = session.manifests[fallback_tag(Digest.of(b"another"))]
    with pytest.raises(Corrupt, match="refers to something else"):
        gather(session, [SUBJECT])


def test_changed_bytes_are_refused() -> None:
    session = Session(api=False)
    one = artifact("a/signature")
    attach(session, one)
    session.manifests[one.descriptor.digest] = (one.data + b" ", OCI_MANIFEST)
    with pytest.raises(Corrupt, match="manifest verification failed"):
        gather(session, [SUBJECT])


def test_there_is_an_end_to_how_many_are_taken() -> None:
    session = Session(api=False)
    entry = {"mediaType": OCI_MANIFEST, "digest": Digest.of(b"x"), "size": 1}
    session.manifests[TAG] = (json.dumps({"manifests": [entry] * 300}).encode(), OCI_INDEX)
    with pytest.raises(InvalidArgument, match="more than 256"):
        find(session, SUBJECT)


def test_a_tag_of_a_long_digest_is_cut_as_the_specification_says() -> None:
    assert fallback_tag(Digest("sha512:" + "a" * 128)) == "sha512-" + "a" * 64
