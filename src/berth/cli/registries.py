"""`berth login`, `berth logout` and `berth push`."""

from __future__ import annotations

import os
import sys

from berth.cli import credentials, pulling
from berth.client import documents
from berth.client.connection import quote
from berth.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.cli.call import Call
    from berth.cli.commands import Verb
    from berth.cli.options import Flag
    from berth.client.documents import Document

LOGIN_FLAGS: tuple[Flag, ...] = (
    ("password", "p", "string", "Password or Personal Access Token (PAT)"),
    ("password-stdin", "", "bool", "Take the Password or Personal Access Token (PAT) from stdin"),
    ("username", "u", "string", "Username"),
)
PUSH_FLAGS: tuple[Flag, ...] = (
    ("all-tags", "a", "bool", "Push all tags of an image to the repository"),
    ("disable-content-trust", "", "true", "Skip image signing"),
    ("platform", "", "string", "Push a platform-specific manifest (os[/arch[/variant]])"),
    ("quiet", "q", "bool", "Suppress verbose output"),
    ("referrers", "", "bool", "Push what is kept of what refers to the image, too"),
)
INSECURE = "WARNING! Using --password via the CLI is insecure. Use --password-stdin."


def login(call: Call) -> int:
    """Ask a registry about credentials and keep them."""
    server = credentials.server_key((call.arguments or [""])[0])
    username, password = _asked(call, server)
    body: Document = {"username": username, "password": password, "serveraddress": server}
    answer = call.engine.request("POST", "/auth", body=body).document()
    token = documents.text(answer, "IdentityToken")
    credentials.store(server, username, password, token)
    if not credentials.helper_of(server):
        where = credentials.path()
        print(
            f"\nWARNING! Your credentials are stored unencrypted in '{where}'.\n"
            "Configure a credential helper to remove this warning. See\n"
            "https://docs.docker.com/go/credential-store/\n",
            file=sys.stderr,
        )
    print(documents.text(answer, "Status") or "Login Succeeded")
    return 0


def _asked(call: Call, server: str) -> tuple[str, str]:
    """Return user name and password, from the flags, stdin or the person at the terminal."""
    options = call.options
    username, password = options.text("username"), options.text("password")
    if options.given("password"):
        print(INSECURE, file=sys.stderr)
        if options.on("password-stdin"):
            raise InvalidArgument("--password and --password-stdin are mutually exclusive")
    if options.on("password-stdin"):
        if not username:
            raise InvalidArgument("the --password-stdin option requires --username to be set")
        password = sys.stdin.read().rstrip("\r\n")
    if not username or not password:
        if not os.isatty(0):
            raise InvalidArgument("cannot perform an interactive login from a non TTY device")
        import getpass

        known = documents.text(credentials.stored(server), "username")
        shown = f"Username ({known}): " if known else "Username: "
        username = username or input(shown).strip() or known
        password = password or getpass.getpass("Password: ")
    if not username:
        raise InvalidArgument("username is empty")
    if not password:
        raise InvalidArgument("password is empty")
    return username, password


def logout(call: Call) -> int:
    """Forget the credentials of a registry."""
    server = credentials.server_key((call.arguments or [""])[0])
    print(f"Removing login credentials for {server}")
    credentials.erase(server)
    return 0


def push(call: Call) -> int:
    """Push an image, or all tags of a repository."""
    options = call.options
    reference = call.arguments[0]
    name, tag = pulling.split(reference)
    quiet = options.on("quiet")
    if options.on("all-tags"):
        if reference != name:
            raise InvalidArgument("tag can't be used with --all-tags/-a")
        tag = ""
    elif reference == name and not quiet:
        print(f"Using default tag: {tag}", flush=True)
    query = {"tag": tag, "platform": options.text("platform")}
    query["referrers"] = "1" if options.on("referrers") else ""
    path = f"/images/{quote(name)}/push"
    more = credentials.headers(reference)
    answer = call.engine.request("POST", path, query, headers=more)
    pulling.progress(answer.lines(), None if quiet else sys.stdout)
    if quiet:
        print(pulling.canonical(f"{name}:{tag}" if tag else name))
    return 0


VERBS: dict[str, Verb] = {
    "login": (LOGIN_FLAGS, login),
    "logout": ((), logout),
    "push": (PUSH_FLAGS, push),
}
