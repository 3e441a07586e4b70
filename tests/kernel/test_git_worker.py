"""The worker that fetches repositories: whatever a server sends, it is bounded, and stays below its root."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import stat
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest
from dulwich.objects import Blob, Commit, Tree
from dulwich.repo import Repo

from berth.builds import gitwork
from berth.builds.repositories import LIMITS
from berth.errors import BerthError
from support import certificates
from support.forks import in_child
from support.repositories import Repositories, Web, Work

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOKEN = "Basic eDp0b2tlbg=="
MIB = 1 << 20
WHO = b"x <x>"


class Worker:
    """Runs the worker, and keeps what it has written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def __call__(self, url: str, ref: str = "", *, limits: object = None, **more: object) -> str:
        """Return the commit's hash; raise what the worker raises."""
        self._count += 1
        root, archive = self._folder / f"root-{self._count}", self._folder / "archive"
        root.mkdir()
        argument = {
            "url": url,
            "ref": ref,
            "folder": "",
            "checksum": "",
            "keeps_git": False,
            "submodules": True,
            "authorization": "",
            "environment": {},
            **more,
            "limits": {**LIMITS, **(limits or {})},
        }
        if size := argument["limits"].pop("more_bytes", 0):
            argument["limits"]["memory_bytes"] = size + _data_bytes()

        def work() -> tuple[dict[str, str], list[dict[str, str]]]:
            directory = os.open(root, os.O_RDONLY)
            output = os.open(archive, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            reports = []
            try:
                gitwork.serve(argument, [directory, output], reports.append)
            except BerthError as error:
                return error.record(), reports
            return {}, reports

        error, reports = in_child(work)
        if error:
            raise RuntimeError(error["message"])
        self.archive = archive.read_bytes()
        return reports[0]["name"]

    def files(self) -> dict[str, str]:
        """Return what files have, and where links lead."""
        with tarfile.open(fileobj=io.BytesIO(self.archive)) as archive:
            return {
                one.name: one.linkname or archive.extractfile(one).read().decode("utf-8", "replace")
                for one in archive
                if not one.isdir()
            }

    def extract(self, folder: Path) -> Path:
        with tarfile.open(fileobj=io.BytesIO(self.archive)) as archive:
            archive.extractall(folder, filter="tar")
        return folder


def _data_bytes() -> int:
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("VmData"))
    return int(line.split()[1]) << 10


@pytest.fixture
def fetch(tmp_path: Path) -> Worker:
    (tmp_path / "worker").mkdir()
    return Worker(tmp_path / "worker")


@pytest.fixture
def git(tmp_path: Path) -> Iterator[Repositories]:
    with contextlib.closing(Repositories(tmp_path)) as found:
        yield found


@pytest.fixture
def web(git: Repositories, tmp_path: Path) -> Iterator[Web]:
    with contextlib.closing(Web(tmp_path / "bare")) as found:
        yield found


def test_commits_are_fetched_by_name_and_hash(fetch: Worker, git: Repositories, web: Web) -> None:
    first = git.commit(f="one", sub__g="deep", tag="v1")
    git.commit(f="two")
    last = git.commit(f="three", branch="side")
    git.git("push", "-q", str(git.bare), "HEAD~2:refs/pull/1/head")
    for url in (git.url, f"{web.url}/r.git"):
        assert fetch(url, first) == fetch(url, "v1") == fetch(url, "refs/pull/1/head") == first
        assert fetch.files() == {"f": "one", "sub/g": "deep"}
        assert fetch(url, "side") == fetch(url, "refs/heads/side", checksum=last[:8]) == last
        fetch(url, folder="sub")
        assert fetch.files() == {"g": "deep"}
        for ref, more, why in (
            ("nope", {}, "does not contain ref nope"),
            ("0" * 40, {}, f"fetch {url}: "),
            ("", {"folder": "f"}, "has no directory f"),
            ("", {"checksum": "abc"}, "expected checksum to match abc"),
        ):
            with pytest.raises(RuntimeError, match=why):
                fetch(url, ref, **more)
    assert web.agents == {"git"}  # others are shown a page


def test_a_kept_repository_is_one_for_git(fetch: Worker, git: Repositories, tmp_path: Path) -> None:
    other = Work(tmp_path, "other")
    git.add_module("inner", "../other.git", other.commit(h="of another"))
    os.symlink("f", git.work / "link")
    git.commit(f="one", tag="v1")
    (git.work / "f").chmod(0o755)
    first = git.commit(sub__g="deep", tag="v2")
    assert fetch(git.url, "v2", keeps_git=True) == first
    folder = fetch.extract(tmp_path / "extracted")
    words = ["git", "-c", "safe.directory=*", "-C", str(folder)]

    def said(*more: str) -> str:
        return subprocess.check_output([*words, *more], text=True).strip()

    assert said("rev-parse", "HEAD") == first
    assert said("describe", "--dirty", "--tags") == "v2"
    assert said("status", "--porcelain") == ""
    assert said("-C", "inner", "status", "--porcelain") == ""
    assert said("-C", "inner", "show", "HEAD:h") == "of another"
    assert stat.S_IMODE((folder / "f").stat().st_mode) == 0o755


def test_submodules_are_fetched_as_well(fetch: Worker, git: Repositories, tmp_path: Path) -> None:
    deep, side = Work(tmp_path, "deep"), Work(tmp_path, "side")
    side.add_module("deep", f"git://127.0.0.1:{git.port}/deep.git", deep.commit(d="deep"))
    old = side.commit(s="old")
    side.commit(s="new")
    git.add_module("lib/side", "../side.git", old)
    git.add_module("none", "../absent.git", old, "\tupdate = none\n")
    git.commit(f="top")
    fetch(git.url)
    found = fetch.files()
    del found[".gitmodules"], found["lib/side/.gitmodules"]
    assert found == {"f": "top", "lib/side/s": "old", "lib/side/deep/d": "deep"}
    fetch(git.url, submodules=False)
    assert set(fetch.files()) == {".gitmodules", "f"}
    fetch(git.url, folder="lib")
    assert fetch.files()["side/deep/d"] == "deep"


def test_submodules_are_where_servers_are(fetch: Worker, git: Repositories) -> None:
    commit = git.commit(f="top")
    for url, why in (
        ("git@example.invalid:r", "by https, http and git"),
        ("ssh://h/r", "by https, http and git"),
        ("/etc", "by https, http and git"),
        ("file:///etc", "by https, http and git"),
        ("ext::sh -c x", "by https, http and git"),
        (r'"http://h/r\n[core]"', "is no URL of a repository"),
        ("", "no URL of submodule"),
    ):
        git.git("rm", "-q", "--cached", "-f", "--ignore-unmatch", "m", ".gitmodules")
        (git.work / ".gitmodules").unlink(missing_ok=True)
        git.add_module("m", url, commit)
        git.save()
        with pytest.raises(RuntimeError, match=why):
            fetch(git.url)


def test_submodules_without_end_are_given_up(fetch: Worker, git: Repositories) -> None:
    commit = git.commit(f="top")
    git.add_module("m", "./../r.git", commit)
    for _ in range(18):
        git.git("update-index", "--add", "--cacheinfo", f"160000,{commit},m")
        commit = git.save()
    with pytest.raises(RuntimeError, match="submodules nest more than 16 deep"):
        fetch(git.url)


def test_who_asks_is_shown_to_one_server_alone(
    fetch: Worker, git: Repositories, web: Web, tmp_path: Path
) -> None:
    side, beside = Work(tmp_path, "side"), Work(tmp_path, "beside")
    with contextlib.closing(Web(tmp_path / "bare")) as other:
        git.add_module("side", f"{other.url}/side.git", side.commit(s="s"))
        git.add_module("beside", "../beside.git", beside.commit(b="b"))
        git.commit(f="top")
        web.wanted = TOKEN
        fetch(f"{web.url}/r.git", authorization=TOKEN)
        assert set(web.seen) == {TOKEN}
        assert set(other.seen) == {""}
        with pytest.raises(RuntimeError, match=r"wants credentials \(status 401\)"):
            fetch(f"{web.url}/r.git")
        other.seen.clear()
        web.elsewhere = other.url
        fetch(f"{web.url}/r.git", authorization=TOKEN)
        assert set(other.seen) == {""}
    with pytest.raises(RuntimeError) as failed:
        fetch(f"{web.url}/r.git", authorization=TOKEN)
    assert TOKEN not in str(failed.value)


def test_servers_are_who_their_certificates_say(
    fetch: Worker, git: Repositories, tmp_path: Path
) -> None:
    git.commit(f="top")
    certificates.make(tmp_path, "authority")
    names = "subjectAltName=DNS:localhost"
    certificates.make(tmp_path, "server", signer="authority", extensions=names)
    known = {"SSL_CERT_FILE": str(tmp_path / "authority.pem")}
    with contextlib.closing(Web(tmp_path / "bare", tmp_path / "server.pem")) as web:
        fetch(f"{web.url}/r.git", environment=known)
        assert fetch.files() == {"f": "top"}
        url = f"{web.url}/r.git".replace("localhost", "127.0.0.1")
        for asked, environment in ((f"{web.url}/r.git", {}), (url, known)):
            with pytest.raises(RuntimeError, match=r"fetch https.*failed to verify certificate"):
                fetch(asked, environment=environment)


def test_proxies_are_asked(fetch: Worker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        url, limits = "http://example.invalid/r.git", {"silence_s": 0.2}
        with pytest.raises(RuntimeError, match=r"timed out|timeout"):
            fetch(url, environment={"http_proxy": address}, limits=limits)
        connection, _ = proxy.accept()
        with connection:
            assert connection.recv(100).startswith(f"GET {url}/info/refs".encode())


@pytest.mark.parametrize("scheme", ["git", "http"])
def test_a_server_that_says_nothing_is_given_up(fetch: Worker, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/r.git"
        with pytest.raises(RuntimeError, match=f"fetch {url}: .*(timed out|timeout)"):
            fetch(url, limits={"silence_s": 0.1})


def hostile(folder: Path, entries: list[tuple[bytes, int, object]]) -> None:
    """Make a repository of one commit that git itself would not make."""
    path = folder / "bare/r.git"
    path.mkdir(parents=True)
    repo, tree = Repo.init_bare(str(path)), Tree()
    for name, mode, thing in entries:
        repo.object_store.add_object(thing)
        tree.add(name, mode, thing.id)
    commit = Commit()
    commit.tree, commit.author, commit.committer, commit.message = tree.id, WHO, WHO, b"x"
    commit.author_time = commit.commit_time = commit.author_timezone = commit.commit_timezone = 0
    for thing in (tree, commit):
        repo.object_store.add_object(thing)
    repo.refs[b"refs/heads/main"] = commit.id
    repo.refs.set_symbolic_ref(b"HEAD", b"refs/heads/main")
    repo.close()


@pytest.mark.parametrize("name", [b"..", b".", b".git", b".GIT", b"a/b"])
def test_names_that_lead_elsewhere_are_refused(
    fetch: Worker, git: Repositories, tmp_path: Path, name: bytes
) -> None:
    hostile(tmp_path, [(name, 0o100644, Blob.from_string(b"x"))])
    with pytest.raises(RuntimeError, match="it has a file"):
        fetch(git.url)


def test_what_is_unpacked_is_bounded(fetch: Worker, git: Repositories, tmp_path: Path) -> None:
    (git.work / "big").write_bytes(bytes(96 * MIB))
    (git.work / "noise").write_bytes(os.urandom(2 * MIB))
    git.commit(f="x")
    for limits, why in (
        ({"more_bytes": 80 * MIB}, "takes more than .* MiB of memory"),
        ({"disk_bytes": 1 * MIB}, "takes more than 1 MiB of objects"),
        ({"disk_bytes": 8 * MIB}, "files take more than 8 MiB"),
        ({"files": 2}, "has more than 2 files"),
    ):
        with pytest.raises(RuntimeError, match=f"fetch {git.url}: its? .*{why}"):
            fetch(git.url, limits=limits)


def test_trees_of_trees_are_bounded(fetch: Worker, git: Repositories, tmp_path: Path) -> None:
    inner: object = Blob.from_string(b"x")
    entries, mode = [], 0o100644
    for _ in range(12):  # ten to the twelfth files
        tree = Tree()
        for number in range(10):
            tree.add(b"%d" % number, mode, inner.id)
        entries.append((b"kept-%d" % len(entries), mode, inner))
        inner, mode = tree, 0o40000
    hostile(tmp_path, [*entries, (b"bomb", mode, inner)])
    with pytest.raises(RuntimeError, match="has more than 1000 files"):
        fetch(git.url, limits={"files": 1000})


def test_the_worker_sees_no_files_and_has_no_rights(fetch: Worker, monkeypatch) -> None:
    def look(task: object, transport: object, output: int, report: object) -> None:
        names = " ".join([*os.listdir("/"), *os.listdir("/etc")])
        report({"name": names})
        for deed in (lambda: os.chown("/etc", 1, 1), lambda: os.chroot(".")):
            with pytest.raises(PermissionError):
                deed()

    monkeypatch.setattr(gitwork, "_deliver", look)
    assert set(fetch("git://h/r").split()) <= {"etc", *gitwork.RESOLVER}
