"""Hooks of a spec: programs that are told the state, in their order (config.md, "POSIX-platform Hooks")."""

from __future__ import annotations

import _signal
import os
import select
import time

from berth.errors import Failed
from berth.runtime import codec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from berth.oci.runtime_spec import Hook, Spec

KINDS = (
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
)
MAX_OUTPUT_BYTES = 1 << 20
IGNORED = (_signal.SIGPIPE, _signal.SIGXFSZ)  # by Python


def of(spec: Spec, kind: str) -> list[Hook]:
    """Return the hooks of one kind."""
    return (spec.get("hooks") or {}).get(kind) or []


def any_of(spec: Spec) -> bool:
    """Say whether there are hooks of any kind."""
    return any(of(spec, kind) for kind in KINDS)


def run(
    spec: Spec,
    kind: str,
    state: Mapping[str, object],
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run all of a kind, one after the other; the first that fails raises Failed.

    Those of the host's that are given no environment have ``environment``, else the caller's.
    """
    wanted = of(spec, kind)
    if not wanted:
        return
    inherited = os.environ if environment is None else environment
    if kind == "startContainer":
        inherited = {}
    document = codec.encode(dict(state))
    for number, hook in enumerate(wanted):
        try:
            _run(hook, document, inherited)
        except (OSError, Failed) as error:
            why = str(error)
            if isinstance(error, OSError):
                why = f"fork/exec {hook['path']}: {(error.strerror or why).lower()}"
            raise Failed(f"error running hook #{number} of {kind}: {why}") from error


def _run(hook: Hook, document: bytes, inherited: Mapping[str, str]) -> None:
    stdin = _memory(document)
    output, theirs = os.pipe2(os.O_CLOEXEC)
    actions = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, theirs, 1)]
    actions.append((os.POSIX_SPAWN_DUP2, theirs, 2))
    environment = inherited
    if "env" in hook:
        environment = dict(entry.partition("=")[::2] for entry in hook["env"])
    arguments = hook.get("args") or [hook["path"]]
    try:
        pid = os.posix_spawn(
            hook["path"],
            arguments,
            environment,
            file_actions=actions,
            setpgroup=0,
            setsigmask=(),
            setsigdef=IGNORED,
        )
    finally:
        os.close(stdin)
        os.close(theirs)
    try:
        text, in_time = _read(output, pid, hook.get("timeout"))
    finally:
        os.close(output)
    if not in_time:
        _kill(pid)
    _, status = os.waitpid(pid, 0)
    if not in_time:
        raise Failed(f"hook ran past specified timeout of {hook.get('timeout')}s")
    if code := os.waitstatus_to_exitcode(status):
        why = f"exit status {code}" if code > 0 else f"signal: {_name(-code)}"
        raise Failed(f"{why}, output: {text.decode(errors='replace').strip()}")


def _kill(pid: int) -> None:
    """Kill a hook and its group, which it may have left."""
    os.kill(pid, _signal.SIGKILL)
    try:
        os.killpg(pid, _signal.SIGKILL)
    except ProcessLookupError:
        return


def _name(number: int) -> str:
    return (_signal.strsignal(number) or str(number)).lower()


def _memory(document: bytes) -> int:
    """Return a descriptor to read the state from; a hook that does not read it holds nobody up."""
    fd = os.memfd_create("state", os.MFD_CLOEXEC)
    os.write(fd, document)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _read(output: int, pid: int, timeout_s: int | None) -> tuple[bytes, bool]:
    """Collect output until the hook has ended, not its children; say whether that was in time."""
    pidfd = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(output, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    deadline = None if not timeout_s else time.monotonic() + timeout_s
    text = b""
    try:
        while True:
            rest = None if deadline is None else max(0, deadline - time.monotonic()) * 1000
            ready = dict(poll.poll(rest))
            if not ready:
                return text, False
            if ready.get(output, 0) & select.POLLIN:
                text = (text + os.read(output, 65536))[-MAX_OUTPUT_BYTES:]
            elif pidfd in ready:
                return text, True
            elif output in ready:  # hung up: it closed both, and may go on
                poll.unregister(output)
    finally:
        os.close(pidfd)
