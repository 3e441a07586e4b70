"""Real registries for tests: Debian's docker-registry, and a front that spoils what passes through."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import http.client
import io
import json
import os
import shutil
import signal
import ssl
import subprocess
import tarfile
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from support.servers import Server

if TYPE_CHECKING:
    from pathlib import Path

PROGRAMS = ("docker-registry", "skopeo")
MISSING = [name for name in PROGRAMS if shutil.which(name) is None]

USER, PASSWORD = "someone", "secret"
HTPASSWD = (
    "someone:$2b$05$NKYL8n4dyTVAhj1hfzKDGevG2klrV6lS.Je65JPgF.XJG5zr2nLa2\n"  # of the password
)

CONFIG = """
version: 0.1
log: {{level: info, accesslog: {{disabled: true}}}}
validation: {{manifests: {{urls: {{allow: ["^http://127.0.0.1"]}}}}}}
storage: {{filesystem: {{rootdirectory: {root}}}, cache: {{blobdescriptor: inmemory}}}}
http: {{addr: "{address}:0"{tls}}}
{auth}
"""


class TokenServer(Server):
    """An authorization server for docker-registry's token authentication, with one user."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self.asked: list[tuple[dict[str, list[str]], str]] = []  # query, Authorization
        server = self

        class Tokens(BaseHTTPRequestHandler):
            def do_GET(self):
                query = parse_qs(urlsplit(self.path).query)
                header = self.headers.get("Authorization", "")
                server.asked.append((query, header))
                if header not in ("", basic(USER, PASSWORD)):
                    self.send_response(401)
                    self.end_headers()
                    return
                body = json.dumps({"token": server.token(query, may_push=bool(header))}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        super().__init__(Tokens)

    def configuration(self, folder: Path) -> str:
        """Return what docker-registry has to know."""
        del folder
        token = f"realm: {self.url}/token, service: test, issuer: test"
        return f"auth: {{token: {{{token}, rootcertbundle: {self._authority.path}}}}}"

    def token(self, query: dict[str, list[str]], *, may_push: bool) -> str:
        """Return a signed token for what is asked for; who has no password may only pull."""
        access = []
        for scope in " ".join(query.get("scope", [])).split():
            kind, name, actions = scope.split(":")
            granted = [a for a in actions.split(",") if may_push or a == "pull"]
            access.append({"type": kind, "name": name, "actions": granted})
        now = int(time.time())
        claims = {
            "iss": "test",
            "aud": "test",
            "sub": USER,
            "jti": os.urandom(8).hex(),
            "iat": now,
            "nbf": now - 60,
            "exp": now + 300,
            "access": access,
        }
        certificate = ssl.PEM_cert_to_DER_cert(self._authority.path.read_text())
        head = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(certificate).decode()]}
        signed = ".".join(_base64url(json.dumps(part).encode()) for part in (head, claims))
        return f"{signed}.{_base64url(self._authority.sign(signed.encode()))}"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class Authority:
    """A certificate authority of the test's own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self.path = folder / "ca.crt"
        self._openssl(
            *("req", "-x509", "-nodes", "-newkey", "rsa:2048", "-subj", "/CN=test authority"),
            *("-keyout", "ca.key", "-out", "ca.crt"),
        )

    def certificate(self, address: str) -> tuple[Path, Path]:
        """Return a certificate for an address, and its key."""
        (self._folder / "names").write_text(f"subjectAltName=IP:{address}\n")
        self._openssl(
            *("req", "-nodes", "-newkey", "rsa:2048", "-subj", "/CN=registry"),
            *("-keyout", "server.key", "-out", "server.csr"),
        )
        self._openssl(
            *("x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key"),
            *("-CAcreateserial", "-extfile", "names", "-out", "server.pem"),
        )
        return self._folder / "server.pem", self._folder / "server.key"

    def sign(self, data: bytes) -> bytes:
        """Return an RSA signature with SHA-256."""
        return self._openssl("dgst", "-sha256", "-sign", "ca.key", stdin=data)

    def identity(self, name: str) -> tuple[Path, Path]:
        """Return a certificate for a client, and its key."""
        self._openssl(
            *("req", "-nodes", "-newkey", "rsa:2048", "-subj", f"/CN={name}"),
            *("-keyout", f"{name}.key", "-out", f"{name}.csr"),
        )
        self._openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key"),
            *("-CAcreateserial", "-out", f"{name}.cert"),
        )
        return self._folder / f"{name}.cert", self._folder / f"{name}.key"

    def _openssl(self, *args: str, stdin: bytes = b"") -> bytes:
        done = subprocess.run(
            ["openssl", *args], cwd=self._folder, check=True, capture_output=True, input=stdin
        )
        return done.stdout


class Registry:
    """A docker-registry process with a store of its own."""

    def __init__(
        self,
        folder: Path,
        *,
        password: bool = False,
        address: str = "127.0.0.1",
        tls: Authority | None = None,
        clients: Authority | None = None,
        tokens: TokenServer | None = None,
    ) -> None:
        """Start it; ``clients``: whose certificates clients must show; ``tokens``: who lets them in."""
        folder.mkdir()
        auth = tokens.configuration(folder) if tokens else ""
        if password:
            (folder / "htpasswd").write_text(HTPASSWD)
            auth = f"auth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}"
        paths = tls.certificate(address) if tls else None
        wanted = f", clientcas: [{clients.path}]" if clients else ""
        text = CONFIG.format(
            root=folder / "store",
            auth=auth,
            address=address,
            tls=f", tls: {{certificate: {paths[0]}, key: {paths[1]}{wanted}}}" if paths else "",
        )
        (folder / "config.yml").write_text(text)
        self._process = subprocess.Popen(
            ["docker-registry", "serve", folder / "config.yml"],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        self.port = self._read_port()
        self.host = f"{address}:{self.port}"
        self._drain = threading.Thread(target=self._process.stderr.read, daemon=True)
        self._drain.start()

    def _read_port(self) -> int:
        for line in self._process.stderr:
            if "listening on" in line:
                address = line.partition("listening on ")[2].split('"')[0].split()[0]
                return int(address.rpartition(":")[2].rstrip(","))
        raise AssertionError("docker-registry ended")

    def push(self, layout: Path, name: str, *options: str) -> None:
        """Copy an OCI layout into the registry."""
        subprocess.run(
            [
                "skopeo",
                "copy",
                "-q",
                "--insecure-policy",
                "--dest-tls-verify=false",
                *options,
                f"oci:{layout}:latest",
                f"docker://{self.host}/{name}",
            ],
            check=True,
        )

    def close(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()
        self._drain.join()
        self._process.stderr.close()


@dataclass
class Answer:
    """What the front does with a request, instead of passing the registry's answer on."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut_after: int | None = None  # the registry's answer, broken after so many bytes
    flip: bool = False  # the registry's answer with one byte changed


class Front(Server):
    """An HTTP server before a registry; ``rules`` are asked in order for what happens to a request."""

    def __init__(self, registry: Registry | None) -> None:
        self.rules = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        front = self

        class Passing(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                front.requests.append((self.path, dict(self.headers)))
                for rule in front.rules:
                    if answer := rule(self.path, self.headers):
                        break
                else:
                    answer = Answer()
                with contextlib.suppress(ConnectionError):
                    if answer.status is not None:
                        self._send(answer.status, answer.headers, answer.body)
                    else:
                        self._forward(answer)

            do_POST = do_GET  # noqa: N815 - the library's name

            def _send(self, status, headers, body):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def _forward(self, answer):
                connection = http.client.HTTPConnection("127.0.0.1", registry.port)
                sent = {k: v for k, v in self.headers.items() if k not in ("Host", "Connection")}
                sent.pop("Authorization", None)
                connection.request("GET", self.path, headers=sent)
                response = connection.getresponse()
                body = response.read()
                connection.close()
                headers = {
                    k: v
                    for k, v in response.getheaders()
                    if k.lower() not in ("content-length", "connection", "date")
                }
                if answer.flip:
                    body = body[:-1] + bytes([body[-1] ^ 1])
                if answer.cut_after is None:
                    self._send(response.status, headers, body)
                    return
                self.send_response(response.status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: answer.cut_after])
                self.close_connection = True

        super().__init__(Passing)


def layer(name: str, data: bytes) -> tuple[bytes, str]:
    """Return a compressed layer of one file, and its diff ID."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    plain = buffer.getvalue()
    return gzip.compress(plain, 1, mtime=0), f"sha256:{hashlib.sha256(plain).hexdigest()}"


class Layout:
    """An OCI layout made by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "blobs/sha256").mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def blob(self, data: bytes, media_type: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (self.folder / "blobs/sha256" / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    def document(self, document: dict[str, object], media_type: str) -> dict[str, object]:
        return self.blob(json.dumps(document).encode(), media_type)

    def image(self, architecture: str, *files: tuple[str, bytes]) -> dict[str, object]:
        layers = [layer(name, data) for name, data in files]
        kind = "application/vnd.oci.image.{}"
        config = {
            "architecture": architecture,
            "os": "linux",
            "config": {"Cmd": ["/hello"]},
            "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id in layers]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": kind.format("manifest.v1+json"),
            "config": self.document(config, kind.format("config.v1+json")),
            "layers": [self.blob(data, kind.format("layer.v1.tar+gzip")) for data, _ in layers],
        }
        descriptor = self.document(manifest, manifest["mediaType"])
        return {**descriptor, "platform": {"architecture": architecture, "os": "linux"}}

    def finish(self, *manifests: dict[str, object]) -> None:
        """Name it ``latest``: the manifest, or an index of several."""
        top = manifests[0]
        if len(manifests) > 1:
            kind = "application/vnd.oci.image.index.v1+json"
            index = {"schemaVersion": 2, "mediaType": kind, "manifests": list(manifests)}
            top = self.document(index, kind)
        named = {**top, "annotations": {"org.opencontainers.image.ref.name": "latest"}}
        index = {"schemaVersion": 2, "manifests": [named]}
        (self.folder / "index.json").write_text(json.dumps(index))


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
