"""What a client asks of a build, by the attributes of BuildKit's Dockerfile frontend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from berth.builds.requests import BuildRequest
from berth.dockerfile.mounts import TRUE
from berth.dockerfile.syntax import directive
from berth.engine.models import HostConfig, Ulimit
from berth.errors import InvalidArgument, Unsupported
from berth.oci.platform import Platform

if TYPE_CHECKING:
    from collections.abc import Mapping

    from berth.builds.offers import Offers
    from berth.builds.requests import NamedContext

REGISTRY = "registry"
REQUEST = "requestid"  # the option of what is no build
FRONTENDS = ("dockerfile.v0", "gateway.v0")
OWN_SYNTAX = ("docker/dockerfile", "docker/dockerfile-upstream")
UPLOADED = "http://buildkit-session/"  # the client's standard input
HUB = ("docker.io/", "index.docker.io/")
NETWORKS = {"": "bridge", "none": "none", "host": "host", "sandbox": "bridge"}


class CacheImport(msgspec.Struct, rename="pascal"):
    """Where steps may be that count."""

    type: str = ""
    attrs: dict[str, str] = {}


def check(frontend: str, options: Mapping[str, str]) -> None:
    """Refuse a frontend that berth is not, and what it cannot do."""
    if frontend not in FRONTENDS:
        raise Unsupported(
            f"frontend {frontend or 'of none'!r} is not part of berth: dockerfile.v0 is"
        )
    if frontend == "gateway.v0":
        refuse_syntax(options.get("source", ""))


def refuse_syntax(name: str) -> None:
    """Refuse a frontend in an image, but for Docker's own, in whose place berth's stands."""
    plain = name.partition("@")[0].rpartition(":")[0] or name
    for domain in HUB:
        plain = plain.removeprefix(domain)
    if plain not in OWN_SYNTAX:
        raise Unsupported(f"frontend {name} is not run: berth reads Dockerfiles itself")


def refuse_policies(*policies: object) -> None:
    """Refuse a build for which a client says what sources it may have: nobody would see to that."""
    if any(policies):
        raise Unsupported("policies for sources are not part of berth: build without them")


def with_prefix(options: Mapping[str, str], prefix: str) -> dict[str, str]:
    """Return the options whose names begin with a prefix, without it."""
    return {
        key.removeprefix(prefix): value for key, value in options.items() if key.startswith(prefix)
    }


def check_syntax(text: str) -> None:
    """Refuse a Dockerfile that names a frontend at its top which is not Docker's."""
    if name := directive(text, "syntax"):
        refuse_syntax(name.split()[0])


def platforms_of(options: Mapping[str, str]) -> list[Platform]:
    """Return what a client asks images for; nothing: for this machine, as it is."""
    texts = [text.strip() for text in options.get("platform", "").split(",")]
    return list(dict.fromkeys(Platform.parse(text) for text in texts if text))


def is_several(options: Mapping[str, str]) -> bool:
    """Say whether the result is an index of images, be it of one."""
    return len(platforms_of(options)) > 1 or options.get("multi-platform") in TRUE


def request_of(
    options: Mapping[str, str], contexts: Mapping[str, NamedContext], offers: Offers
) -> BuildRequest:
    """Return what a client asks for; of several platforms, for the first."""
    platforms = platforms_of(options)
    remote = options.get(options.get("contextkey", "context"), "")
    return BuildRequest(
        dockerfile=options.get("filename", ""),
        remote="" if remote.startswith(UPLOADED) else remote,
        target=options.get("target", ""),
        arguments=with_prefix(options, "build-arg:"),
        labels=with_prefix(options, "label:"),
        cache_from=cache_sources(options),
        cache_adds=True,
        use_cache=options.get("no-cache") != "",
        fresh_stages=[name for name in options.get("no-cache", "").lower().split(",") if name],
        pull=options.get("image-resolve-mode") == "pull",
        always_remove=True,
        platform=platforms[0] if platforms else None,
        host=host_of(options),
        contexts=contexts,
        offers=offers,
    )


def cache_sources(options: Mapping[str, str]) -> list[str]:
    """Return the images whose steps are to count. Older clients name them in an option of its own."""
    text = options.get("cache-imports", "[]")
    try:
        entries = msgspec.json.decode(text, type=list[CacheImport])
    except msgspec.DecodeError as error:
        raise InvalidArgument(f"failed to unmarshal cache imports: {error}") from error
    found = [one.attrs.get("ref", "") for one in entries if one.type == REGISTRY]
    return [ref for ref in (*found, *options.get("cache-from", "").split(",")) if ref]


def host_of(options: Mapping[str, str]) -> HostConfig:
    """Return how the containers of RUN are limited and connected."""
    network = options.get("force-network-mode", "")
    if network not in NETWORKS:
        raise InvalidArgument(f"invalid network mode {network!r}")
    hosts = options.get("add-hosts", "")
    ulimits = options.get("ulimit", "")
    return HostConfig(
        network_mode=NETWORKS[network],
        shm_size=number(options, "shm-size"),
        memory=number(options, "memory"),
        memory_swap=number(options, "memory-swap"),
        cpu_shares=number(options, "cpu-shares"),
        cpu_period=number(options, "cpu-period"),
        cpu_quota=number(options, "cpu-quota"),
        cpuset_cpus=options.get("cpu-set-cpus", ""),
        cpuset_mems=options.get("cpu-set-mems", ""),
        cgroup_parent=options.get("cgroup-parent", ""),
        extra_hosts=[":".join(entry.split("=", 1)) for entry in hosts.split(",") if entry],
        ulimits=[ulimit_of(entry) for entry in ulimits.split(",") if entry],
    )


def number(options: Mapping[str, str], key: str) -> int:
    """Return an option that is a number; 0 for none."""
    text = options.get(key, "0")
    try:
        return int(text)
    except ValueError:
        raise InvalidArgument(f"{key}={text}: this is no number") from None


def ulimit_of(text: str) -> Ulimit:
    """Read ``name=soft[:hard]``."""
    name, _, limits = text.partition("=")
    soft, _, hard = limits.partition(":")
    try:
        return Ulimit(name=name, soft=int(soft), hard=int(hard or soft))
    except ValueError:
        raise InvalidArgument(f"ulimit {text}: name=soft[:hard] is expected") from None
