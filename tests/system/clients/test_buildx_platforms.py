"""Images for several platforms at once by `docker build` with buildx."""

from __future__ import annotations

import json
import os
import tarfile
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from support.programs import find, run

if TYPE_CHECKING:
    from support.projects import Project
    from support.registries import Registry
    from system.clients.conftest import Client

BOTH = ("--platform", "linux/amd64,linux/arm64")
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKERFILE = """
FROM --platform=$BUILDPLATFORM busybox AS made
ARG TARGETPLATFORM TARGETARCH
RUN echo for $TARGETPLATFORM > /made
FROM scratch
ARG TARGETARCH
LABEL arch=$TARGETARCH
COPY --from=made /made /made
COPY note /
"""


def test_one_name_is_of_both_and_each_is_its_own(
    project: Project, docker: Client, tmp_path: Path
) -> None:
    project.write(DOCKERFILE, note="noted\n")
    done = docker.build(project, *BOTH, "-t", "both:1", "-o", "type=image")
    assert "[linux/arm64 made 2/2] RUN echo for $TARGETPLATFORM > /made" in done.err
    assert "[linux/amd64 stage-1 2/2] COPY note /" in done.err
    for platform in ("linux/amd64", "linux/arm64"):
        shown = docker("image", "inspect", "--platform", platform, "both:1")
        [document] = json.loads(shown.out)
        architecture = platform.rpartition("/")[2]
        assert (document["Architecture"], document["Config"]["Labels"]) == (
            architecture,
            {"arch": architecture},
        )
    out = tmp_path / "out"
    assert "CACHED" in docker.build(project, *BOTH, "-o", str(out)).err
    assert {path: (out / path / "made").read_text() for path in sorted(os.listdir(out))} == {
        "linux_amd64": "for linux/amd64\n",
        "linux_arm64": "for linux/arm64\n",
    }
    project.write("FROM both:1\nCOPY note /other\n")
    docker.build(project, *BOTH, "-t", "both:2")  # bases are those of the platform
    arm = json.loads(docker("image", "inspect", "--platform", "linux/arm64", "both:2").out)[0]
    assert arm["Config"]["Labels"] == {"arch": "arm64"}


def test_a_name_passes_from_several_to_one(project: Project, docker: Client) -> None:
    project.write("FROM scratch\nCOPY note /\n", note="1")
    docker.build(project, *BOTH, "-t", "passing")
    project.file("note", "2")
    docker.build(project, "-t", "passing")
    assert docker("image", "inspect", "--platform", "linux/arm64", "passing").code == 1


def test_archives_have_an_index(project: Project, docker: Client, tmp_path: Path) -> None:
    project.write(DOCKERFILE, note="noted\n")
    path, metadata = tmp_path / "image.tar", tmp_path / "metadata"
    flags = ("-o", f"type=oci,dest={path}", "--metadata-file", str(metadata))
    docker.build(project, *BOTH, "-t", "sent:1", *flags)
    digest = json.loads(metadata.read_text())["containerimage.digest"]
    with tarfile.open(path) as archive:
        [entry] = json.load(archive.extractfile("index.json"))["manifests"]  # type: ignore[arg-type]
        assert (entry["mediaType"], entry["digest"]) == (INDEX, digest)
        blob = archive.extractfile("blobs/" + digest.replace(":", "/"))
        parts = json.load(blob)["manifests"]  # type: ignore[arg-type]
    assert [part["platform"]["architecture"] for part in parts] == ["amd64", "arm64"]
    copied = tmp_path / "copied"
    skopeo = (find("skopeo"), "copy", "--all", "--insecure-policy")
    run(*skopeo, f"oci-archive:{path}", f"oci:{copied}:1", check=True)
    refused = docker.try_to_build(project, *BOTH, "-o", f"type=tar,dest={tmp_path}/files.tar")
    assert refused.code == 1
    assert "files of several platforms are no one archive" in refused.err


def test_registries_get_an_index(
    project: Project, docker: Client, registry: Registry, tmp_path: Path
) -> None:
    name, metadata = f"{registry.host}/both:1", tmp_path / "metadata"
    project.write(DOCKERFILE, note="noted\n")
    docker.build(project, *BOTH, "-t", name, "--push", "--metadata-file", str(metadata))
    request = urllib.request.Request(
        f"http://{registry.host}/v2/both/manifests/1",
        headers={"Accept": f"{INDEX}, application/vnd.docker.distribution.manifest.list.v2+json"},
    )
    with urllib.request.urlopen(request) as answer:
        assert (
            answer.headers["Docker-Content-Digest"]
            == (json.loads(metadata.read_text())["containerimage.digest"])
        )
        parts = json.load(answer)["manifests"]
    assert [part["platform"]["architecture"] for part in parts] == ["amd64", "arm64"]
    with urllib.request.urlopen(f"http://{registry.host}/v2/both/tags/list") as answer:
        assert json.load(answer)["tags"] == ["1"]
    for platform in ("linux/arm64", "linux/amd64"):
        docker("rmi", "-f", name)
        assert docker("pull", "--platform", platform, name).code == 0
        labels = project.inspect(name)["Config"]["Labels"]  # type: ignore[index]
        assert labels == {"arch": platform.rpartition("/")[2]}


def test_an_image_is_said_to_be_for_what_it_was_built_for(project: Project, docker: Client) -> None:
    project.write("FROM --platform=$BUILDPLATFORM busybox\nLABEL a=b\n")
    docker.build(project, "--platform", "linux/s390x", "-t", "other")
    assert project.inspect("other")["Architecture"] == "s390x"


def test_commands_of_another_machine_fail_as_the_kernel_says(
    project: Project, docker: Client
) -> None:
    program = bytearray(Path(find("busybox")).resolve().read_bytes())
    program[18:20] = (0x7777).to_bytes(2, "little")  # a machine that there is not
    project.write("FROM scratch\nCOPY --chmod=755 sh /bin/sh\nRUN echo made\n", sh=bytes(program))
    done = docker.try_to_build(project, "--platform", "linux/arm64")
    assert done.code == 1
    assert "exec /bin/sh: exec format error" in done.err
    assert "   3 | >>> RUN echo made\n" in done.err


def test_the_platform_that_fails_is_shown(project: Project, docker: Client) -> None:
    project.write(
        "FROM --platform=$BUILDPLATFORM busybox\nARG TARGETARCH\nRUN test $TARGETARCH = amd64\n"
    )
    done = docker.try_to_build(project, *BOTH)
    assert done.code == 1
    assert "> [linux/arm64 2/2] RUN test $TARGETARCH = amd64" in done.err
    assert "   3 | >>> RUN test $TARGETARCH = amd64\n" in done.err


def test_targets_of_a_bake_are_contexts_for_each_platform(project: Project, docker: Client) -> None:
    project.write("FROM base\nCOPY note /\n", note="noted\n")
    project.file(
        "docker-bake.hcl",
        """
        target "base" {
          dockerfile-inline = "FROM scratch\\nARG TARGETARCH\\nLABEL arch=$TARGETARCH\\nCOPY note /first\\n"
          platforms = ["linux/amd64", "linux/arm64"]
        }
        target "default" {
          contexts = { base = "target:base" }
          platforms = ["linux/amd64", "linux/arm64"]
          tags = ["linked"]
        }
        """,
    )
    done = docker("buildx", "bake", "--progress=plain", cwd=project.folder)
    assert done.code == 0, str(done)
    for architecture in ("amd64", "arm64"):
        flags = ("--platform", f"linux/{architecture}")
        [document] = json.loads(docker("image", "inspect", *flags, "linked").out)
        assert document["Config"]["Labels"] == {"arch": architecture}
