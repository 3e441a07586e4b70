"""Places and properties of systemd's, before it is asked."""

from __future__ import annotations

import pytest

from berth.bundle import systemd
from berth.errors import InvalidArgument, Unsupported


def place(path: str):
    """Return the place of a spec with that cgroupsPath."""
    return systemd.Place({"linux": {"cgroupsPath": path}}, "id")


def test_a_path_is_a_slice_a_prefix_and_a_name():
    found = place("machine-pod.slice:berth:one")
    assert found.unit == "berth-one.scope"
    assert found.path == "/machine.slice/machine-pod.slice/berth-one.scope"


def test_what_is_left_out_is_systems():
    assert place("").path == "/system.slice/berth-oci-id.scope"
    assert place("::").path == "/system.slice/id.scope"


def test_a_slice_is_a_unit_itself():
    found = place("machine.slice:berth:machine-x.slice")
    assert found.path == "/machine.slice/machine-x.slice"


def test_the_root_slice_is_the_top():
    assert place("-.slice:a:b").path == "/a-b.scope"


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/plain/path", 'expected cgroupsPath to be of format "slice:prefix:name"'),
        ("a:b:c:d", "expected cgroupsPath"),
        ("no-suffix:berth:one", "invalid slice name: no-suffix"),
        ("a--b.slice:berth:one", "invalid slice name: a--b.slice"),
        ("a/b.slice:berth:one", "invalid slice name"),
        (".slice:berth:one", "invalid slice name"),
    ],
)
def test_other_paths_are_refused(path, why):
    with pytest.raises(InvalidArgument, match=why):
        place(path)


def test_a_unit_that_leads_elsewhere_is_refused():
    with pytest.raises(InvalidArgument, match="invalid unit name"):
        place("machine.slice:..:../x")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("uint64 123", ("t", 123)),
        ("int32 -5", ("i", -5)),
        ("9", ("i", 9)),
        ("true", ("b", True)),
        ("'inactive'", ("s", "inactive")),
        ('"x y"', ("s", "x y")),
    ],
)
def test_values_of_annotations(text, value):
    assert systemd.parse(text) == value


def test_other_values_are_refused():
    with pytest.raises(InvalidArgument, match="cannot parse the value"):
        systemd.parse("[1, 2]")


def test_without_systemd_the_flag_is_refused(monkeypatch):
    monkeypatch.setattr(systemd, "BOOTED", "/nowhere")
    with pytest.raises(Unsupported, match="systemd support for managing cgroups is not available"):
        systemd.check_running()
