from __future__ import annotations

import pwd

import pytest

from berth.configuration import subordinate
from berth.errors import InvalidArgument, NotFound

ME = pwd.getpwuid(1).pw_name  # somebody whom every machine has


@pytest.fixture
def files(tmp_path, monkeypatch):
    paths = (tmp_path / "subuid", tmp_path / "subgid")
    monkeypatch.setattr(subordinate, "FILES", paths)

    def write(text):
        for path in paths:
            path.write_text(text)

    return write


@pytest.mark.parametrize("text", [ME, "1", f"{ME}:{ME}", "1:1", f"1:{ME}"])
def test_a_user_is_a_name_or_a_number_and_so_is_a_group(files, text):
    files(f"# whose\nother:1000:5\n{ME}:100000:65536\n")
    maps = subordinate.resolve(text)
    assert maps.uids == maps.gids == [(0, 100_000, 65_536)]


def test_spans_follow_each_other_in_the_container_and_the_number_counts_first(files):
    files(f"{ME}:5000:10\n1:100000:1000\n1:300000:20 # more\n")
    assert subordinate.resolve(ME).uids == [(0, 100_000, 1000), (1000, 300_000, 20)]


@pytest.mark.parametrize("text", ["", "root", "0", "root:root"])
def test_root_is_not_remapped_with_itself(files, text):
    files("")
    assert subordinate.resolve(text) is None


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("nobody-knows", NotFound, "Error during uid lookup"),
        ("1:nobody-knows", NotFound, "Error during gid lookup"),
        ("4294967290", NotFound, "has no entry in /etc/passwd"),
        (f"{ME}:4294967290", NotFound, "has no entry in /etc/group"),
        (ME, NotFound, "no subuid ranges found"),
        ("1:1:1", InvalidArgument, "Invalid user/group specification"),
        (":1", InvalidArgument, "Invalid user/group specification"),
        ("1:", InvalidArgument, "Invalid user/group specification"),
    ],
)
def test_what_is_missing_is_said(files, text, kind, words):
    files("other:1000:5\n")
    with pytest.raises(kind, match=words):
        subordinate.resolve(text)


@pytest.mark.parametrize("span", ["4294967290:65536", "x:5", "1000:0"])
def test_spans_are_ids(files, span):
    files(f"{ME}:{span}\n")
    with pytest.raises(InvalidArgument, match="these are no ids"):
        subordinate.resolve(ME)
