from __future__ import annotations

import pytest

from berth.dockerfile import mounts
from berth.dockerfile.mounts import Mount
from berth.errors import InvalidArgument


def read(text, **variables):
    def put_in(value):
        for name, found in variables.items():
            value = value.replace(f"${name}", found)
        return value

    return mounts.read(text, put_in)


def test_binds_are_what_nothing_is_said_of():
    assert read("target=/x") == Mount(target="/x", read_only=True)
    assert read("from=a,src=/b,dst=/x,rw") == Mount(
        origin="a", source="/b", target="/x", read_only=False
    )
    assert read('"target=/a,b",readonly=false').target == "/a,b"
    assert read("target=/$d,RO=1", d="v") == Mount(target="/v", read_only=True)


def test_the_other_kinds():
    cache = read("type=CACHE,id=i,target=/x,sharing=Locked,mode=0700,uid=1,gid=2")
    wanted = {"kind": "cache", "id": "i", "target": "/x", "sharing": "locked", "mode": 0o700}
    assert cache == Mount(**wanted, uid=1, gid=2, read_only=False)
    assert read("type=tmpfs,target=/x,size=1.5m").size_bytes == 3 << 19
    assert read("type=tmpfs,target=/x,size=100").size_bytes == 100
    secret = read("type=secret,id=s,required,env=E,mode=0400")
    assert (secret.required, secret.env, secret.mode, secret.read_only) == (True, "E", 0o400, True)
    assert read("type=ssh,required=false").required is False


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("type=volume", 'unsupported mount type "volume"'),
        ("type=cache,sharing=none", 'unsupported sharing value "none"'),
        ("what=x", "unexpected key 'what' in 'what=x'"),
        ("target", "invalid field 'target' must be a key=value pair"),
        ("required", "unexpected key 'required' for mount type 'bind'"),
        ("size=1", "unexpected key 'size' for mount type 'bind'"),
        ("type=tmpfs,size=x", "invalid value for size: x"),
        ("type=tmpfs,size=8388608t", "invalid value for size"),
        (f"type=tmpfs,size={'9' * 400}", "invalid value for size"),
        ("ro=maybe", "invalid value for ro: maybe"),
        ("type=cache,mode=9", "invalid value 9 for mode"),
        ("type=cache,uid=-1", "invalid value -1 for uid"),
        ("mode=0755", 'mode not allowed for "bind" type mounts'),
        ("type=secret", "one of source, target required"),
        ("type=secret,id=a,from=b", "secret mount should not have a from"),
        ("type=secret,id=a,source=b", "both source and id can't be set"),
        ("type=ssh,source=a", "ssh does not support source"),
        ("type=ssh,sharing=shared", "invalid cache sharing set for ssh mount"),
        ('"target=/x', "failed to parse csv mounts"),
    ],
)
def test_what_is_no_mount(text, why):
    with pytest.raises(InvalidArgument, match=why.replace("(", r"\(")):
        read(text)


def test_where_it_comes_from_is_known_before_variables_are():
    assert mounts.origin_of("type=bind,from=stage,target=$x") == "stage"
    assert mounts.origin_of("target=/x") == ""
    with pytest.raises(InvalidArgument, match="doesn't support variable expansion"):
        mounts.origin_of("from=$x,target=/x")


def test_targets_and_ids_are_settled():
    texts = (
        *("type=secret,id=a/b", "type=secret,target=t/c", "type=secret,id=d,env=", "type=ssh"),
        *("type=ssh,target=/s", "type=ssh,id=k", "type=cache,target=./x/", "target=in"),
    )
    found = mounts.settled([read(text) for text in texts], "/w")
    assert [(mount.id, mount.target) for mount in found] == [
        ("a/b", "/run/secrets/b"),
        ("c", "/w/t/c"),
        ("d", ""),
        ("default", "/run/buildkit/ssh_agent.0"),
        ("default", "/s"),
        ("k", "/run/buildkit/ssh_agent.2"),
        ("x", "/w/x"),
        ("in", "/w/in"),
    ]
    assert found[2].env == "d"
    with pytest.raises(InvalidArgument, match="invalid mount target"):
        mounts.settled([read("type=tmpfs,target=..")], "/w")
