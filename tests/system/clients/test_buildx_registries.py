"""What `docker build` with buildx leaves in registries, and takes from them: annotations, caches."""

from __future__ import annotations

import json
import tarfile
import urllib.request
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from support.projects import Project
    from support.registries import Registry
    from system.clients.conftest import Client

BOTH = ("--platform", "linux/amd64,linux/arm64")
KINDS = ("image.manifest", "image.index")
BIND = "RUN --mount=target=/context cat /context/note > /made"


def manifest(registry: Registry, name: str, which: str) -> dict[str, object]:
    """Return a manifest or an index of a registry."""
    kinds = ", ".join(f"application/vnd.oci.{kind}.v1+json" for kind in KINDS)
    url = f"http://{registry.host}/v2/{name}/manifests/{which}"
    request = urllib.request.Request(url, headers={"Accept": kinds})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)  # type: ignore[no-any-return]


def test_annotations_of_what_is_pushed(
    project: Project, docker: Client, registry: Registry
) -> None:
    project.write("FROM busybox\nRUN echo > /file\n")
    name = f"{registry.host}/noted:1"
    docker.build(project, "-t", name, "--push", "--annotation", "a=b c")
    found = manifest(registry, "noted", "1")
    assert found["annotations"] == {"a": "b c"}
    assert found["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    docker("rmi", "-f", name)
    assert docker("pull", name).code == 0
    assert project.run(name, "ls /file") == "/file\n"


def test_annotations_of_an_index(project: Project, docker: Client, registry: Registry) -> None:
    project.write("FROM scratch\nCOPY note /\n", note="")
    notes = (
        "index:i=1",
        "manifest[linux/arm64]:m=arm",
        "manifest-descriptor:d=2",
        "manifest:m=all",
    )
    flags = [flag for note in notes for flag in ("--annotation", note)]
    docker.build(project, *BOTH, "-t", f"{registry.host}/noted:2", "--push", *flags)
    index = manifest(registry, "noted", "2")
    assert index["annotations"] == {"i": "1"}
    found = {}
    for part in index["manifests"]:  # type: ignore[attr-defined]
        assert part["annotations"] == {"d": "2"}
        architecture = part["platform"]["architecture"]
        found[architecture] = manifest(registry, "noted", part["digest"])["annotations"]
    assert found == {"amd64": {"m": "all"}, "arm64": {"m": "arm"}}


def test_annotations_of_an_archive(project: Project, docker: Client, tmp_path: Path) -> None:
    project.write("FROM busybox\nENV a=b\n")
    path = tmp_path / "image.tar"
    docker.build(project, "-o", f"type=oci,dest={path},annotation.x=y")
    with tarfile.open(path) as archive:
        [entry] = json.load(archive.extractfile("index.json"))["manifests"]  # type: ignore[arg-type]
        blob = archive.extractfile("blobs/" + entry["digest"].replace(":", "/"))
        assert json.load(blob)["annotations"] == {"x": "y"}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("note", "why"),
    [
        ("manifest[linux/s390x]:a=b", "no platform linux/s390x found in source"),
        ("index:a=b", "index annotations not supported for single platform export"),
    ],
)
def test_annotations_of_what_there_is_not_are_refused(
    project: Project, docker: Client, tmp_path: Path, note: str, why: str
) -> None:
    project.write("FROM busybox\nENV a=b\n")
    output = f"type=oci,dest={tmp_path}/image.tar"
    done = docker.try_to_build(project, "-o", output, "--annotation", note)
    assert done.code == 1
    assert why in done.err


def test_annotations_that_are_not_kept_are_said_so(project: Project, docker: Client) -> None:
    project.write("FROM busybox\nENV a=b\n")
    done = docker.build(project, "-t", "noted", "--annotation", "a=b", "-o", "type=image")
    assert "annotations are not kept here" in done.err


def test_caches_are_in_registries(project: Project, docker: Client, registry: Registry) -> None:
    cache = f"{registry.host}/cache:main"
    to, of = (("--cache-to", f"type=registry,ref={cache}"), ("--cache-from", cache))
    project.write("FROM busybox\nCOPY note /\nRUN cat /proc/uptime > /made\n", note="noted\n")
    done = docker.build(project, "-t", "kept", *to)
    assert "exporting cache to registry" in done.err
    assert cache not in docker("images").out
    made = project.run("kept", "cat /made")
    assert docker("rmi", "-f", "kept").code == 0
    assert docker("buildx", "prune", "-af").code == 0
    done = docker.build(project, "-t", "kept", *of)
    assert f"importing cache manifest from {cache}" in done.err
    assert done.err.count(" CACHED\n") == 2
    assert project.run("kept", "cat /made") == made
    missing = f"{registry.host}/none:1"
    assert docker.build(project, "--cache-from", missing).code == 0
    project.file("note", "changed\n")
    assert docker.build(project, *of).err.count(" CACHED\n") == 0


@pytest.mark.parametrize(
    ("step", "later", "wanted"),
    [
        (BIND, BIND, "second\n644\n"),
        ("COPY --chmod=644 same /made", "COPY --chmod=600 same /made", "same\n600\n"),
    ],
)
def test_what_history_does_not_say_is_not_taken_from_a_registry(
    project: Project, docker: Client, registry: Registry, step: str, later: str, wanted: str
) -> None:
    cache = f"{registry.host}/cache:main"
    project.write(f"FROM busybox\n{step}\n", note="first\n", same="same\n")
    docker.build(project, "-t", "kept", "--cache-to", f"type=registry,ref={cache}")
    assert docker("rmi", "-f", "kept").code == 0
    assert docker("buildx", "prune", "-af").code == 0
    project.write(f"FROM busybox\n{later}\n", note="second\n")
    docker.build(project, "-t", "kept", "--cache-from", cache)
    assert project.run("kept", "cat /made; stat -c %a /made") == wanted


def test_caches_of_several_platforms(project: Project, docker: Client, registry: Registry) -> None:
    cache = f"{registry.host}/cache:both"
    project.write("FROM scratch\nARG TARGETARCH\nLABEL a=$TARGETARCH\nCOPY note /\n", note="1")
    docker.build(project, *BOTH, "--cache-to", f"type=registry,ref={cache}")
    docker("image", "prune", "-f")
    docker("buildx", "prune", "-af")
    assert docker.build(project, *BOTH, "--cache-from", cache).err.count(" CACHED\n") == 2
