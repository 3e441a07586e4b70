from __future__ import annotations

import hashlib

import msgspec
import pytest

from berth.errors import InvalidArgument
from berth.oci.image import ImageDocument, Index, Manifest, chain_ids, decode


def test_chain_ids_follow_the_specification():
    first, second = "sha256:" + "a" * 64, "sha256:" + "b" * 64
    joined = "sha256:" + hashlib.sha256(f"{first} {second}".encode()).hexdigest()
    assert chain_ids([]) == []
    assert chain_ids([first, second]) == [first, joined]


def test_a_configuration_as_docker_writes_it_is_read():
    data = b"""{"architecture":"amd64","os":"linux","config":{"Cmd":["sh"],"Env":null,
    "ExposedPorts":{"80/tcp":{}},"Healthcheck":{"Test":["CMD","x"],"Interval":1000},"New":1},
    "rootfs":{"type":"layers","diff_ids":["sha256:x"]},"history":[{"created":"2024-01-01T00:00:00Z",
    "created_by":"ADD","empty_layer":true}],"moby.buildkit.buildinfo.v1":"zzz"}"""
    document = decode(data, ImageDocument, "image configuration")
    assert document.config is not None
    assert document.config.cmd == ["sh"]
    assert document.config.healthcheck is not None
    assert document.config.healthcheck.interval == 1000
    assert document.rootfs.diff_ids == ["sha256:x"]
    assert document.history is not None
    assert document.history[0].empty_layer


def test_a_configuration_that_is_written_names_its_system():
    assert b'"os":"linux"' in msgspec.json.encode(ImageDocument(os="linux"))
    assert decode(b"{}", ImageDocument, "image configuration").is_for_linux


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"config": 1}', b"\xff", b'{"layers": []}'])
def test_what_is_no_manifest_is_refused_by_name(data):
    with pytest.raises(InvalidArgument, match="read the manifest"):
        decode(data, Manifest, "the manifest")


def test_an_index_keeps_platforms_and_annotations():
    data = b"""{"schemaVersion":2,"manifests":[{"mediaType":"m","digest":"d","size":3,
    "platform":{"os":"linux","architecture":"arm","variant":"v7"},"annotations":{"a":"b"}}]}"""
    entry = decode(data, Index, "index").manifests[0]
    assert entry.platform is not None
    assert (entry.platform.architecture, entry.platform.variant) == ("arm", "v7")
    assert entry.annotations == {"a": "b"}
