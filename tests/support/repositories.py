"""Repositories of git, and servers of them: git's own daemon, and its HTTP."""

from __future__ import annotations

import base64
import http.server
import os
import socket
import ssl
import subprocess
import threading
from pathlib import Path

from support.programs import find
from support.waiting import wait_for

WHO = {f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
ENV = {**os.environ, **WHO, "GIT_CONFIG_GLOBAL": "/dev/null"}


def basic(token: str) -> str:
    return f"Basic {base64.b64encode(f'x-access-token:{token}'.encode()).decode()}"


class Work:
    """A repository with files, and the bare one that a server has, ``r.git`` if it has no other name."""

    def __init__(self, folder: Path, name: str = "r") -> None:
        self.bare = folder / f"bare/{name}.git"
        self.work = folder / f"work-{name}"
        find("git")
        self.work.mkdir(parents=True)
        self.git("init", "-q", "-b", "main")

    def git(self, *words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=self.work, env=ENV, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def commit(self, *, tag: str = "", branch: str = "", **files: str) -> str:
        """Commit files, and send everything to the server; ``__`` in names is a slash."""
        if branch:
            self.git("checkout", "-q", "-b", branch)
        for name, text in files.items():
            path = self.work / name.replace("__", "/")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        self.git("add", "--ignore-removal", ".")
        return self.save(tag)

    def save(self, tag: str = "") -> str:
        """Commit what is added, and send everything to the server."""
        self.git("commit", "-q", "-m", "x")
        if tag:
            self.git("tag", "-a", "-m", "x", tag)
        if not self.bare.exists():
            self.git("init", "-q", "--bare", "-b", "main", str(self.bare))
        self.git("push", "-q", str(self.bare), "--all")
        self.git("push", "-q", str(self.bare), "--tags")
        return self.git("rev-parse", "HEAD")

    def add_module(self, path: str, url: str, commit: str, more: str = "") -> None:
        """Add a submodule, which nobody looks at."""
        with (self.work / ".gitmodules").open("a") as file:
            file.write(f'[submodule "{path}"]\n\tpath = {path}\n\turl = {url}\n{more}')
        self.git("add", ".gitmodules")
        self.git("update-index", "--add", "--cacheinfo", f"160000,{commit},{path}")


class Repositories(Work):
    """A repository that git's daemon has, and others beside it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (folder / "bare").mkdir(exist_ok=True)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port = taken.getsockname()[1]
        self._daemon = subprocess.Popen(
            [
                *("git", "daemon", "--export-all", "--reuseaddr", "--listen=127.0.0.1"),
                *(f"--port={self.port}", f"--base-path={folder / 'bare'}", str(folder / "bare")),
            ],
            stderr=subprocess.DEVNULL,
        )
        wait_for(self._answers, "the server of git")

    def _answers(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    @property
    def url(self) -> str:
        return f"git://127.0.0.1:{self.port}/r.git"

    def close(self) -> None:
        self._daemon.terminate()
        self._daemon.wait()


class Web:
    """git's HTTP for the bare repositories in a directory."""

    def __init__(self, folder: Path, certificate: Path | None = None) -> None:
        """``certificate``: NAME.pem beside NAME-key.pem, for TLS."""
        web, backend = (
            self,
            Path(subprocess.check_output(["git", "--exec-path"], text=True).strip()),
        )
        self.wanted = ""  # what Authorization has to be
        self.elsewhere = ""  # where all are sent
        self.seen: list[str] = []  # what was sent for Authorization
        self.agents: set[str] = set()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._serve(b"")

            def do_POST(self) -> None:
                self._serve(self.rfile.read(int(self.headers["Content-Length"])))

            def _serve(self, body: bytes) -> None:
                shown = self.headers.get("Authorization", "")
                web.seen.append(shown)
                web.agents.add(self.headers["User-Agent"].partition("/")[0])
                if web.elsewhere:
                    self._answer(302, b"", {"Location": web.elsewhere + self.path})
                elif web.wanted not in ("", shown):
                    self._answer(401, b"", {"WWW-Authenticate": 'Basic realm="x"'})
                else:
                    self._ask_git(body)

            def _ask_git(self, body: bytes) -> None:
                path, _, query = self.path.partition("?")
                env = {
                    **ENV,
                    "GIT_PROJECT_ROOT": str(folder),
                    "GIT_HTTP_EXPORT_ALL": "1",
                    "PATH_INFO": path,
                    "QUERY_STRING": query,
                    "REQUEST_METHOD": self.command,
                    "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                    "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                    "REMOTE_USER": "x",
                }
                program = [str(backend / "git-http-backend")]
                done = subprocess.run(program, env=env, input=body, capture_output=True, check=True)
                head, _, data = done.stdout.partition(b"\r\n\r\n")
                said = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
                self._answer(int(said.pop("Status", "200 OK").split()[0]), data, said)

            def _answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                return

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            key = certificate.with_name(f"{certificate.stem}-key.pem")
            context.load_cert_chain(certificate, key)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        scheme, name = ("https", "localhost") if certificate else ("http", "127.0.0.1")
        self.url = f"{scheme}://{name}:{self.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
