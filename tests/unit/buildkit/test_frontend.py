from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.buildkit import frontend, graphs, messages
from berth.buildkit.solving import quoted
from berth.buildkit.vertices import vertex_name
from berth.builds.offers import NO_OFFERS
from berth.builds.output import Plan
from berth.dockerfile import stages
from berth.errors import BerthError, InvalidArgument, Unsupported


def test_attributes_become_a_request():
    request = frontend.request_of(
        {
            "filename": "Other",
            "target": "t",
            "build-arg:A": "1",
            "label:L": "v",
            "no-cache": "x,y",
            "add-hosts": "a=1.2.3.4,b=::1",
            "ulimit": "nofile=1:2,nproc=3",
            "shm-size": "64",
            "force-network-mode": "none",
            "image-resolve-mode": "pull",
            "platform": "linux/arm64",
        },
        {},
        NO_OFFERS,
    )
    assert (request.dockerfile, request.target, request.pull) == ("Other", "t", True)
    assert (request.arguments, request.labels) == ({"A": "1"}, {"L": "v"})
    assert request.use_cache
    assert request.fresh_stages == ["x", "y"]
    assert request.host.extra_hosts == ["a:1.2.3.4", "b:::1"]
    assert [(u.name, u.soft, u.hard) for u in request.host.ulimits] == [
        ("nofile", 1, 2),
        ("nproc", 3, 3),
    ]
    assert (request.host.network_mode, request.host.shm_size) == ("none", 64)
    assert str(request.platform) == "linux/arm64"
    assert not frontend.request_of({"no-cache": ""}, {}, NO_OFFERS).use_cache


def test_caches_are_named_by_clients_old_and_new():
    entries = '[{"Type":"registry","Attrs":{"ref":"a"}},{"Type":"local","Attrs":{"src":"x"}}]'
    assert frontend.cache_sources({"cache-imports": entries}) == ["a"]
    assert frontend.cache_sources({"cache-from": "b,c"}) == ["b", "c"]
    assert frontend.cache_sources({}) == []
    with pytest.raises(InvalidArgument):
        frontend.cache_sources({"cache-imports": "{"})


def test_platforms_are_several_or_one():
    def asked(**options):
        found = frontend.platforms_of(options)
        return [str(one) for one in found], frontend.is_several(options)

    assert asked() == ([], False)
    assert asked(platform="linux/arm64") == (["linux/arm64"], False)
    assert asked(platform="linux/arm64,linux/arm64/v8") == (["linux/arm64"], False)
    assert asked(platform="linux/amd64, linux/arm64") == (["linux/amd64", "linux/arm64"], True)
    assert asked(platform="linux/arm64", **{"multi-platform": "true"}) == (["linux/arm64"], True)


@pytest.mark.parametrize(
    "options", [{"shm-size": "x"}, {"ulimit": "nofile=x"}, {"force-network-mode": "br0"}]
)
def test_attributes_without_sense_are_refused(options):
    with pytest.raises(InvalidArgument):
        frontend.request_of(options, {}, NO_OFFERS)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gateway.v0", {"source": "me/mine"}),
        ("gateway.v0", {}),
        ("other.v0", {}),
    ],
)
def test_what_berth_is_not_is_refused(name, options):
    with pytest.raises(Unsupported):
        frontend.check(name, options)


@pytest.mark.parametrize(
    "source",
    ["docker/dockerfile", "docker/dockerfile:1", "docker.io/docker/dockerfile:1.7-labs@sha256:0"],
)
def test_dockers_frontend_is_ours(source):
    frontend.check("gateway.v0", {"source": source})
    assert frontend.check_syntax(f"# escape=`\n# syntax={source}\nFROM x\n") is None
    with pytest.raises(Unsupported):
        frontend.check_syntax("#syntax = me/mine extra\nFROM x\n")


def test_an_image_is_found_in_its_graph():
    definition = graphs.definition_of("sha256:1")
    parsed = messages.of("Definition").FromString(definition.SerializeToString())
    assert graphs.source_of(parsed) == "docker-image://sha256:1"
    assert parsed.metadata


@given(st.lists(st.binary(max_size=40), max_size=3))
def test_any_other_graph_is_refused(ops):
    definition = messages.of("Definition")(**{"def": ops})
    try:
        found = graphs.source_of(definition)
    except BerthError:
        return
    assert isinstance(found, str)


def names_of(text):
    dockerfile = stages.read(text)
    plan = Plan(
        before=0,
        stages=dockerfile.stages,
        after=0,
        bases={stage.index: stage.head.base for stage in dockerfile.stages},
        alone=len(dockerfile.stages) == 1,
    )
    steps = [(stage, step) for stage in dockerfile.stages for step in (stage.head, *stage.steps)]
    return [vertex_name(plan, stage, step) for stage, step in steps]


def test_steps_are_called_as_buildkit_calls_them():
    assert names_of("FROM busybox\nENV A=b\nrun x\nWORKDIR /w\n") == [
        *("[1/3] FROM docker.io/library/busybox:latest", "", "[2/3] RUN x", "[3/3] WORKDIR /w"),
    ]
    text = "FROM a:1 AS one\nRUN x\nFROM one\nCOPY y z\nFROM scratch AS two\nADD q /\n"
    assert names_of(text) == [
        *("[one 1/2] FROM docker.io/library/a:1", "[one 2/2] RUN x"),
        *("", "[stage-1 1/1] COPY y z", "", "[two 1/1] ADD q /"),
    ]
    many = names_of("FROM a\n" + "RUN x\n" * 10)
    assert many[0].startswith("[ 1/11] FROM")
    assert many[-1] == "[11/11] RUN x"


def test_texts_are_quoted_as_go_does_it():
    assert quoted('say "a\\b"\n') == '"say \\"a\\\\b\\"\\n"'
