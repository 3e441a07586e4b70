import os

import pytest

from berth.cli.storage import device, mount, throttle, volumes
from berth.errors import InvalidArgument


def test_volumes_are_binds_or_anonymous():
    binds, anonymous = volumes(["/a:/b:ro", "named:/c", "./x:/d", "/e"])
    assert binds == ["/a:/b:ro", "named:/c", f"{os.getcwd()}/x:/d"]
    assert anonymous == {"/e": {}}
    with pytest.raises(InvalidArgument, match="must be absolute"):
        volumes(["e"])


def test_mounts_are_comma_separated_fields():
    assert mount("type=bind,source=/a,target=/b,readonly,bind-propagation=rslave") == {
        "Type": "bind",
        "Source": "/a",
        "Target": "/b",
        "ReadOnly": True,
        "BindOptions": {"Propagation": "rslave"},
    }
    assert mount("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1777,ro=false") == {
        "Type": "tmpfs",
        "Target": "/t",
        "ReadOnly": False,
        "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o1777},
    }
    assert mount('src=v,dst=/t,"volume-opt=o=a,b",volume-nocopy,volume-label=k=v') == {
        "Type": "volume",
        "Source": "v",
        "Target": "/t",
        "VolumeOptions": {
            "DriverConfig": {"Options": {"o": "a,b"}},
            "NoCopy": True,
            "Labels": {"k": "v"},
        },
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("type=bind,source=/a", "target is required"),
        ("target=/a,foo=1", "unexpected key 'foo' in 'foo=1'"),
        ("target=/a,foo", "invalid field 'foo'"),
        ("target=/a,ro=maybe", "invalid value for ro: maybe"),
    ],
)
def test_bad_mounts_are_refused(text, message):
    with pytest.raises(InvalidArgument, match=message):
        mount(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("/dev/x", ("/dev/x", "/dev/x", "rwm")),
        ("/dev/x:r", ("/dev/x", "/dev/x", "r")),
        ("/dev/x:/dev/y", ("/dev/x", "/dev/y", "rwm")),
        ("/dev/x:/dev/y:rw", ("/dev/x", "/dev/y", "rw")),
    ],
)
def test_devices_have_a_place_and_permissions(text, found):
    assert tuple(device(text).values()) == found


def test_bad_devices_are_refused():
    for text in ("/dev/x:/dev/y:q", "a:b:c:d"):
        with pytest.raises(InvalidArgument):
            device(text)


def test_rates_have_a_device():
    assert throttle("/dev/sda:1mb") == {"Path": "/dev/sda", "Rate": 1 << 20}
