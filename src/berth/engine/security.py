"""What a container may do: capabilities, seccomp, no_new_privs, masked paths. Pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from berth.engine import defaults, seccomp
from berth.errors import InvalidArgument
from berth.kernel.capabilities import NAMES

if TYPE_CHECKING:
    from berth.engine.models import HostConfig
    from berth.oci.runtime_spec import Capabilities

PREFIX = "CAP_"
ALL = "ALL"


class SecurityOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The --security-opt values, parsed."""

    no_new_privileges: bool = False
    seccomp: str = ""  # "", "unconfined" or a profile as JSON
    system_paths_visible: bool = False


def security_options(host: HostConfig) -> SecurityOptions:
    """Parse --security-opt. Labels of AppArmor and SELinux are passed over where the kernel has neither."""
    no_new_privileges = visible = False
    profile = ""
    for option in host.security_opt or []:
        key, value = _split(option)
        if key == "no-new-privileges":
            if value not in ("", "true", "false"):
                raise InvalidArgument(f'invalid --security-opt 2: "{option}"')
            no_new_privileges = value != "false"
        elif key == "seccomp":
            profile = value
        elif key == "systempaths" and value == seccomp.UNCONFINED:
            visible = True
        elif key not in ("apparmor", "label", "writable-cgroups"):
            raise InvalidArgument(f'invalid --security-opt 2: "{option}"')
    if host.privileged:
        profile = profile or seccomp.UNCONFINED
    return SecurityOptions(
        no_new_privileges=no_new_privileges, seccomp=profile, system_paths_visible=visible
    )


def _split(option: str) -> tuple[str, str]:
    """Split "key=value" or the older "key:value"."""
    key, separator, value = option.partition("=")
    if not separator:
        key, _, value = option.partition(":")
    return key, value


def capability_names(host: HostConfig) -> list[str]:
    """Return the capabilities after --cap-add, --cap-drop and --privileged."""
    added = [_capability(name, "CapAdd") for name in host.cap_add or []]
    dropped = [_capability(name, "CapDrop") for name in host.cap_drop or []]
    if host.privileged:
        return list(NAMES)
    if ALL in added:
        names = list(NAMES)
    elif ALL in dropped:
        names = []
    else:
        names = list(defaults.CAPABILITIES)
    names += [name for name in added if name not in names and name != ALL]
    return [name for name in names if name not in dropped]


def _capability(name: str, field: str) -> str:
    upper = name.upper()
    if upper == ALL:
        return upper
    full = upper if upper.startswith(PREFIX) else PREFIX + upper
    if full not in NAMES:
        raise InvalidArgument(f'invalid {field}: unknown capability: "{full}"')
    return full


def capabilities(names: list[str]) -> Capabilities:
    """Return the sets of a process with ``names``: nothing inheritable, nothing ambient."""
    return {"bounding": names, "effective": names, "permitted": names}


def seccomp_filter(host: HostConfig, *, has_quota: bool = False) -> bytes | None:
    """Return the compiled filter of a container, None for none; InvalidArgument for a bad profile.

    ``has_quota``: there is a limit of what it may write.
    """
    option = security_options(host).seccomp
    return seccomp.filter_for(option, capability_names(host), has_quota=has_quota)


def exec_seccomp_filter(host: HostConfig, *, privileged: bool, has_quota: bool) -> bytes | None:
    """Return the filter of an extra process; a privileged one of a confined container keeps its profile."""
    names = list(NAMES) if privileged else capability_names(host)
    return seccomp.filter_for(security_options(host).seccomp, names, has_quota=has_quota)


def hidden_paths(host: HostConfig) -> tuple[list[str], list[str]]:
    """Return the masked and the read-only paths."""
    if host.privileged or security_options(host).system_paths_visible:
        return [], []
    masked = defaults.masked_paths() if host.masked_paths is None else host.masked_paths
    read_only = defaults.READ_ONLY_PATHS if host.readonly_paths is None else host.readonly_paths
    return list(masked), list(read_only)
