"""The last steps of a container's process before it becomes the user's program.

Everything here runs in the forked child, inside the container's namespaces and root, and ends in
execve(2). Nothing may be inherited from the engine: descriptors, environment, signals, keyring.
"""

from __future__ import annotations

import _signal
import os
import resource
import stat

from berth.errors import (
    BerthError,
    CommandNotExecutable,
    CommandNotFound,
    Failed,
    InvalidArgument,
)
from berth.kernel import capabilities, processes, seccomp
from berth.runtime import accounts, reaper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.oci.runtime_spec import Process, Rlimit

INIT_PROGRAM = "/sbin/docker-init"  # as ps shows it in Docker's containers
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NULL_DEVICE = os.makedev(1, 3)
INIT = "error during container init: "


def reset_signals() -> None:
    """Give every signal its default action and unblock all (a Python process ignores SIGPIPE)."""
    for number in (_signal.SIGPIPE, _signal.SIGXFSZ, _signal.SIGINT, _signal.SIGCHLD):
        _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def set_rlimits(limits: list[Rlimit]) -> None:
    """Set the resource limits; raising a hard one needs CAP_SYS_RESOURCE."""
    for number, soft, hard in _rlimits(limits):
        _set_rlimit(number, soft, hard)


def raise_rlimits(limits: list[Rlimit]) -> None:
    """Raise hard limits as far as :func:`set_rlimits` is going to, which hinders nobody until then."""
    for number, _, hard in _rlimits(limits):
        soft, now = resource.getrlimit(number)
        if now != resource.RLIM_INFINITY and (hard == resource.RLIM_INFINITY or hard > now):
            _set_rlimit(number, soft, hard)


def _rlimits(limits: list[Rlimit]) -> list[tuple[int, int, int]]:
    """Return (number, soft, hard) of each."""
    found = []
    for limit in limits:
        name = limit["type"]
        number = getattr(resource, name, None)
        if number is None:
            raise InvalidArgument(f"invalid rlimit {name!r}: not known here")
        values = [
            v if v < (1 << 63) else resource.RLIM_INFINITY for v in (limit["soft"], limit["hard"])
        ]
        found.append((number, values[0], values[1]))
    return found


def _set_rlimit(number: int, soft: int, hard: int) -> None:
    try:
        resource.setrlimit(number, (soft, hard))
    except (OSError, ValueError) as error:
        raise Failed(
            f"{INIT}error setting rlimits for ready process: error setting rlimit type {number}:"
            " operation not permitted"
        ) from error


def set_oom_score(value: int) -> None:
    """Write this process's oom_score_adj (proc(5))."""
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write(str(value))


def become(process: Process, account: accounts.Account, filter_: bytes | None) -> None:
    """Give up every privilege that the process should not have, and become its user."""
    wanted = process.get("capabilities", {})
    capabilities.drop_bounding(wanted)  # first: a filter looks at every call
    no_new_privileges = process.get("noNewPrivileges", False)
    if no_new_privileges:
        processes.prctl(processes.PR_SET_NO_NEW_PRIVS, 1)
    # Loading a filter without no_new_privs needs CAP_SYS_ADMIN, so it comes before the change of user.
    elif filter_ is not None:
        seccomp.load(filter_)
    capabilities.keep_over_setuid()
    _set_groups(account.groups)
    os.setresgid(account.gid, account.gid, account.gid)
    os.setresuid(account.uid, account.uid, account.uid)
    capabilities.apply(wanted)
    if no_new_privileges and filter_ is not None:
        seccomp.load(filter_)


def _set_groups(groups: list[int]) -> None:
    """Set the additional groups; an ordinary user's namespace has to do with those that are there."""
    try:
        os.setgroups(groups)
    except PermissionError:
        if groups:
            raise


def own_streams(uid: int) -> None:
    """Give a user its streams; not a null device, which may be the machine's."""
    for fd in (0, 1, 2):
        try:
            status = os.fstat(fd)
            if stat.S_ISCHR(status.st_mode) and status.st_rdev == NULL_DEVICE:
                continue
            if status.st_uid != uid:
                os.fchown(fd, uid, -1)
        except OSError:  # not in this user namespace, or a file system that has no owners
            continue


def environment(process: Process, account: accounts.Account) -> dict[str, str]:
    """Return the process's environment, with HOME from passwd unless given."""
    pairs = (entry.partition("=") for entry in process.get("env", []))
    values = {name: value for name, _, value in pairs if name}
    if not values.get("HOME"):
        values["HOME"] = account.home
    return values


def enter_directory(path: str, *, make: bool) -> None:
    """Change to the working directory, which may lead out of the root; with ``make``, made when missing."""
    try:
        os.chdir(path)
    except FileNotFoundError as error:
        if not make:
            raise Failed(_no_directory(path, error)) from error
        _make_directory(os.path.realpath(path))  # noqa: TID251 - this is inside the root
        os.chdir(path)
    except NotADirectoryError as error:
        if not make:
            raise Failed(_no_directory(path, error)) from error
        raise InvalidArgument(f"Cannot mkdir: {path} is not a directory") from error
    _check_directory()


def _no_directory(path: str, error: OSError) -> str:
    return f'chdir to cwd ("{path}") set in config.json failed: {reason(error)}'


def _make_directory(path: str) -> None:
    """Make ``path`` step by step: nothing is made outside of the root, whatever changes meanwhile."""
    os.chdir("/")
    for name in path.split("/")[1:]:
        try:
            if not os.path.lexists(name):
                os.mkdir(name, 0o755)
            os.chdir(name)
        except OSError as error:
            raise Failed(f"{INIT}mkdir {path}: {reason(error)}") from error
        _check_directory()


def _check_directory() -> None:
    # A link such as /proc/PID/root leads to other processes' files (CVE-2024-21626).
    if not processes.is_inside_root():
        raise Failed(
            "current working directory is outside of container mount namespace root -- possible"
            " container breakout detected"
        )


def find_program(name: str, search: str) -> str:
    """Return the path to execute for ``name``, as exec.LookPath would, with Docker's refusals."""
    candidates = (
        [name] if "/" in name else [f"{folder or '.'}/{name}" for folder in search.split(":")]
    )
    denied = False
    for candidate in candidates:
        if not os.path.exists(candidate):
            continue
        if os.path.isdir(candidate):
            if "/" in name:
                raise CommandNotExecutable(f'exec: "{name}": is a directory')
            continue
        # The first knows capabilities, and is a call that older filters refuse.
        if os.access(candidate, os.X_OK, effective_ids=True) or os.access(candidate, os.X_OK):
            return candidate
        denied = True
    if denied:
        raise CommandNotExecutable(f'exec: "{name}": permission denied')
    if "/" in name:
        raise CommandNotFound(f'exec: "{name}": stat {name}: no such file or directory')
    raise CommandNotFound(f'exec: "{name}": executable file not found in $PATH')


def execute(process: Process, account: accounts.Account, *, init: bool) -> None:
    """Become the user's program; with ``init``, stay its reaping parent instead. Never returns."""
    values = environment(process, account)
    arguments = process["args"]
    program = find_program(arguments[0], values.get("PATH", DEFAULT_PATH))
    if init:
        processes.set_name(os.path.basename(INIT_PROGRAM).encode())
        processes.set_title([INIT_PROGRAM, "--", *arguments])
    child = os.fork() if init else 0
    if child:
        reaper.run(child)
    replace(program, arguments, values)


def replace(program: str, arguments: list[str], values: dict[str, str]) -> None:
    """Become ``program`` (execve(2)), or raise what Docker says of one that cannot be executed."""
    try:
        os.execve(program, arguments, values)
    except PermissionError as error:
        raise CommandNotExecutable(f'exec: "{arguments[0]}": permission denied') from error
    except FileNotFoundError as error:  # its interpreter is missing
        raise CommandNotFound(f"exec {program}: no such file or directory") from error
    except OSError as error:
        text = (error.strerror or str(error)).lower()
        raise CommandNotExecutable(f"exec {program}: {text}") from error


def reason(error: OSError) -> str:
    """Return why it failed as Docker writes it, with a small letter: its CLI's exit code depends on that."""
    text = error.strerror or str(error)
    why = os.strerror(error.errno) if error.errno else ""
    return text.replace(why, why[:1].lower() + why[1:]) if why else text


def describe(step: str, error: BaseException) -> dict[str, object]:
    """Return what the monitor tells berthd about a failure in the child."""
    if isinstance(error, BerthError):
        return {"error": error.record(), "step": step}
    if isinstance(error, OSError):
        text = reason(error)
        if error.filename:
            text = f"{os.fsdecode(error.filename)}: {text}"
        return {"error": {"code": "failed", "message": f"{INIT}{step}: {text}"}, "step": step}
    return {"error": {"code": "failed", "message": f"{INIT}{step}: {error!r}"}, "step": step}
