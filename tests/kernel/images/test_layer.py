"""Extraction on a real file system: equal to GNU tar's, and never outside."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile

import pytest

from berth.errors import BerthError
from kernel.images.trees import describe


def archive(*members):
    """Write (name, type, more) members; ``more`` are TarInfo's fields, and ``data``."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, more in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            data = more.pop("data", b"")
            info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
            for key, value in more.items():
                setattr(info, key, value)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def directory(name, **more):
    return name, tarfile.DIRTYPE, more


def file(name, data=b"x", **more):
    return name, tarfile.REGTYPE, {"data": data, **more}


def symlink(name, target):
    return name, tarfile.SYMTYPE, {"linkname": target}


def link(name, target):
    return name, tarfile.LNKTYPE, {"linkname": target}


def make_tree(root):
    """Fill a directory with everything a layer may have."""
    root.mkdir()
    (root / "deep/er").mkdir(parents=True)
    (root / ("long" * 60)).write_text("long name")
    (root / "deep/er/file").write_bytes(os.urandom(3 << 20))
    os.link(root / "deep/er/file", root / "deep/hard")
    (root / "deep/link").symlink_to("/absolute/" + "far/" * 40)
    (root / "Ünï\udcff").write_text("not utf-8")
    (root / "suid").write_text("#!")
    os.chown(root / "suid", 12, 34)
    (root / "suid").chmod(0o6755)
    (root / "sticky").mkdir()
    (root / "sticky").chmod(0o1777)
    (root / "setgid").mkdir()
    os.chown(root / "setgid", 0, 99)
    (root / "setgid").chmod(0o2775)
    (root / "setgid/inside").write_text("root's")
    (root / "setgid/folder").mkdir()
    os.chown(root / "setgid/inside", 0, 0)
    os.chown(root / "setgid/folder", 0, 0)
    (root / "setgid/folder").chmod(0o755)
    (root / "unreadable").mkdir(mode=0o000)
    (root / "unreadable/file").write_text("hidden")
    os.mkfifo(root / "fifo", 0o640)
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "loop", stat.S_IFBLK | 0o660, os.makedev(7, 200))
    os.setxattr(root / "suid", "user.comment", b"\x00\xff binary\n=")
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(root / "deep/er/file", "security.capability", capability)
    os.setxattr(root / "sticky", "trusted.note", b"of a directory")
    with (root / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 20)
        sparse.seek(500_000)
        sparse.write(b"middle")
    for number, (folder, folders, files) in enumerate(os.walk(root, topdown=False)):
        for name in [*files, *folders]:
            moment = 1_600_000_000_123_456_789 + number * 1_000_000_007
            path = os.path.join(folder, name)
            os.utime(path, ns=(moment, moment), follow_symlinks=False)
    os.chown(root, 5, 6)
    root.chmod(0o750)
    os.utime(root, ns=(1_500_000_000_000_000_001,) * 2)


@pytest.mark.parametrize(
    "options",
    [["--format=pax", "--xattrs", "--xattrs-include=*"], ["--format=gnu"], ["--format=gnu", "-S"]]
    + [["--format=pax", "-S", f"--sparse-version={version}"] for version in ("1.0", "0.1")],
    ids=" ".join,
)
def test_extraction_equals_gnu_tars(tmp_path, extract, options):
    make_tree(tmp_path / "tree")
    packed = tmp_path / "tree.tar"
    subprocess.run(["tar", "-C", tmp_path / "tree", *options, "-cf", packed, "."], check=True)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    subprocess.run(
        ["tar", "-C", theirs, "--xattrs", "--xattrs-include=*", "--same-owner", "-xpf", packed],
        check=True,
    )
    ours = extract(packed.read_bytes())
    assert describe(ours) == describe(theirs)
    if options[0] == "--format=pax" and "-S" not in options:
        assert describe(ours) == describe(tmp_path / "tree")


def test_sparse_files_stay_sparse(tmp_path, extract):
    make_tree(tmp_path / "tree")
    packed = tmp_path / "tree.tar"
    subprocess.run(["tar", "-C", tmp_path / "tree", "-Scf", packed, "sparse"], check=True)
    status = (extract(packed.read_bytes()) / "sparse").stat()
    assert status.st_size == 1 << 20
    assert status.st_blocks * 512 < 1 << 18


def test_whiteouts_become_overlayfs_ones(extract):
    fs = extract(
        archive(
            directory("etc"),
            file("etc/.wh.shadow"),
            directory("opt"),
            file("opt/.wh..wh..opq"),
            file("opt/new"),
            file(".wh..wh.plnk"),
        )
    )
    hidden = (fs / "etc/shadow").stat()
    assert stat.S_ISCHR(hidden.st_mode)
    assert hidden.st_rdev == 0
    assert os.getxattr(fs / "opt", "trusted.overlay.opaque") == b"y"
    assert sorted(os.listdir(fs)) == ["etc", "opt"]
    assert os.listdir(fs / "opt") == ["new"]


@pytest.mark.parametrize("whiteout_first", [True, False])
def test_a_whiteout_does_not_hide_what_its_own_layer_has(extract, whiteout_first):
    hiding = [file(".wh.dir"), file(".wh.file")]
    there = [directory("dir"), file("dir/new"), file("file")]
    fs = extract(archive(*(hiding + there if whiteout_first else there + hiding)))
    assert (fs / "file").read_bytes() == b"x"
    assert (fs / "dir/new").read_bytes() == b"x"
    # What a lower layer has in that directory is hidden all the same.
    assert os.getxattr(fs / "dir", "trusted.overlay.opaque") == b"y"


def test_later_members_replace_earlier_ones(extract):
    fs = extract(
        archive(
            file("a", b"1"),
            directory("a"),
            file("a/b"),
            file("a", b"2"),
            symlink("s", "a"),
            file("s", b"own"),
            directory("d"),
            file("d/x"),
            symlink("d", "/nowhere"),
            file("e", b"1"),
            file("e", b"2"),
            link("e", "a"),
            link("e", "e"),
        )
    )
    assert (fs / "a").read_bytes() == b"2"
    assert (fs / "s").read_bytes() == b"own"
    assert os.readlink(fs / "d") == "/nowhere"
    assert (fs / "e").stat().st_ino == (fs / "a").stat().st_ino


def test_parents_are_made_and_links_followed_inside(extract):
    fs = extract(
        archive(
            file("usr/lib/one"),
            symlink("lib", "usr/lib"),
            file("lib/two"),
            symlink("abs", "/usr/lib"),
            file("abs/three"),
            file("./dotted/../plain"),
            file("/absolute"),
            file("/../root"),
        )
    )
    assert sorted(os.listdir(fs / "usr/lib")) == ["one", "three", "two"]
    assert (fs / "usr").stat().st_mode & 0o7777 == 0o755
    assert {"plain", "absolute", "root"} <= set(os.listdir(fs))


@pytest.mark.parametrize(
    "members",
    [
        [file("../evil")],
        [file("a/../../evil")],
        [symlink("out", ".."), file("out/evil")],
        [symlink("out", "../../.."), file("out/evil")],
        [symlink("up", ".."), symlink("up/evil", "x")],
        [link("stolen", "../victim")],
        [symlink("out", ".."), link("stolen", "out/victim")],
        [symlink("v", "../victim"), file("v", b"overwritten")],
        [symlink("v", "../victim"), link("w", "v"), file("w", b"overwritten")],
        [symlink("out", ".."), directory("out/evil")],
        [symlink("out", ".."), file("out/.wh.victim")],
        [file(".wh..")],
        [file(".wh...")],
        [file(".wh.")],
        [symlink("out", ".."), directory("out", mode=0o777), file("out/evil")],
        [link("root", "/")],
        [directory("d"), link("d/loop", "d")],
        [symlink("loop", "loop"), file("loop/x")],
        [file("file"), file("file/below")],
    ],
    ids=lambda members: " ".join(name for name, _, _ in members),
)
def test_nothing_leaves_the_root(tmp_path, extract, members):
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    tmp_path.chmod(0o700)
    before = sorted(os.listdir(tmp_path.parent))
    try:
        extract(archive(*members))
    except BerthError as error:
        assert "Traceback" not in str(error)
        assert str(error).startswith(("InvalidArgument", "Failed"))
    assert victim.read_text() == "untouched"
    assert victim.stat().st_nlink == 1
    assert sorted(os.listdir(tmp_path)) == ["blob1", "fs1", "victim"]
    assert sorted(os.listdir(tmp_path.parent)) == before
    assert tmp_path.stat().st_mode & 0o7777 == 0o700


def test_an_archive_does_not_speak_to_overlayfs(extract):
    headers = {
        f"SCHILY.xattr.{name}": "y"
        for name in ("trusted.overlay.opaque", "trusted.overlay.redirect", "user.overlay.opaque")
    }
    kept = {"SCHILY.xattr.user.kept": "y"}
    fs = extract(archive(directory("d", pax_headers={**headers, **kept})))
    assert os.listxattr(fs / "d") == ["user.kept"]


def test_names_too_long_for_the_kernel_are_refused(extract):
    with pytest.raises(BerthError, match=r"InvalidArgument: extract .*file name too long"):
        extract(archive(file("x" * 300)))


def test_a_tree_as_deep_as_a_path_can_name_is_replaced(extract):
    deep = "/".join(["d"] * 1500)
    fs = extract(archive(file(f"{deep}/f"), file("d", b"now a file")))
    assert (fs / "d").read_bytes() == b"now a file"


def sparse(size, regions=b"0\n"):
    """A file that says it is larger than what there is of it."""
    headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "sparse",
        "GNU.sparse.realsize": str(size),
    }
    return file("x", regions.ljust(512, b"\0"), pax_headers=headers)


@pytest.mark.parametrize(
    "member",
    [
        sparse(1 << 63),
        sparse((1 << 63) - 1),
        sparse(10, b"1\n0\n99\n"),
        sparse(1 << 40, b"1\n-5\n5\n"),
        sparse(1 << 40, b"99999999999999999999\n"),
    ],
    ids=["too-large", "largest", "too-much", "negative", "many"],
)
def test_sparse_lies_take_no_space(tmp_path, extract, member):
    try:
        fs = extract(archive(member))
    except BerthError as error:
        assert "Traceback" not in str(error)
    else:
        assert (fs / "sparse").stat().st_blocks == 0


def test_what_makes_programs_privileged_is_as_the_archive_says_and_no_more(extract):
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    headers = {"SCHILY.xattr.security.capability": capability.decode("latin-1")}
    label = {"SCHILY.xattr.security.selinux": "system_u:object_r:shadow_t:s0"}
    fs = extract(
        archive(
            file("suid", mode=0o6755, uid=1000, gid=50),
            file("ping", mode=0o755, uid=0, pax_headers=headers),
            file("was-suid", mode=0o4755),
            file("was-suid", b"another", mode=0o755),
            file("was-ping", pax_headers=headers),
            file("was-ping", b"another"),
            file("labelled", pax_headers=label),
        )
    )
    assert (fs / "suid").stat().st_mode & 0o7777 == 0o6755
    assert (fs / "suid").stat().st_uid == 1000
    assert os.listxattr(fs / "ping") == ["security.capability"]
    assert (fs / "was-suid").stat().st_mode & 0o7777 == 0o755
    assert os.listxattr(fs / "was-ping") == []
    assert os.listxattr(fs / "labelled") == []


def test_names_of_attributes_that_no_file_has_are_refused(extract):
    for key in ("SCHILY.xattr.user.a\0b", "LIBARCHIVE.xattr.user.a%00b"):
        with pytest.raises(BerthError, match="an extended attribute is damaged"):
            extract(archive(file("file", pax_headers={key: "eA=="})))
