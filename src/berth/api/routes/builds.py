"""Routes of builds."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

import msgspec

from berth.api.router import Route
from berth.buildkit.service import OlderBuild
from berth.engine.models import HostConfig, Ulimit
from berth.errors import BerthError, InvalidArgument, Unsupported
from berth.oci.platform import Platform
from berth.oci.reference import DEFAULT_DOMAIN, HUB_DOMAINS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from berth.api.exchange import Exchange
    from berth.api.parameters import Call
    from berth.buildkit.service import BuildKit
    from berth.builds.requests import BuildRequest
    from berth.builds.service import Builds


BUILDKIT = "2"


class BuildRoutes:
    """``/build``."""

    def __init__(self, builds: Builds, buildkit: BuildKit) -> None:
        self._builds = builds
        self._buildkit = buildkit

    def routes(self) -> list[Route]:
        """Return the table."""
        return [
            Route("POST", "/build", self.build, long=True),
            Route("POST", "/build/cancel", self.cancel),
            Route("POST", "/build/prune", self.prune),
        ]

    async def build(self, call: Call) -> None:
        """Build an image; what goes wrong after the first message is the last one."""
        exchange = call.exchange
        listener = MessageStream(exchange)
        try:
            if call.text("version") == BUILDKIT:
                wanted = OlderBuild(
                    session_id=call.text("session"),
                    options=buildkit_options(call),
                    outputs=buildkit_outputs(call),
                    quiet=call.flag("q"),
                )
                await self._buildkit.build(wanted, listener)
            else:
                request, id_ = request_of(call), call.text("buildid")
                await self._builds.build(request, exchange.body_stream(), listener, id_=id_)
        except BerthError as error:
            if not exchange.answered:
                raise
            await exchange.end(failure(error))
        else:
            await exchange.end()

    async def cancel(self, call: Call) -> None:
        """Cancel the build that its client has given an id."""
        self._builds.cancel(call.text("id"))
        await call.exchange.respond_bytes(200, b"", "")

    async def prune(self, call: Call) -> None:
        """Remove what builds have made and no image with a name is made of."""
        from berth.builds import pruning

        wanted = pruning.of_filters(
            call.filters(),
            everything=call.flag("all"),
            reserved_bytes=call.integer("reserved-space") or call.integer("keep-storage") or 0,
            max_used_bytes=call.integer("max-used-space") or 0,
            min_free_bytes=call.integer("min-free-space") or 0,
        )
        answer = await self._builds.prune(wanted)
        await call.exchange.respond(200, answer)


class MessageStream:
    """The client of a build, who reads JSON messages."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def _begin(self) -> None:
        if not self._exchange.answered:
            self._exchange.begin()

    async def tell(self, message: Mapping[str, object]) -> None:
        """Send a message; waits while the client does not read."""
        self._begin()
        await self._exchange.write_document(message)

    def report(self, message: Mapping[str, object]) -> None:
        """Send a message that may be left out while the client does not read."""
        self._begin()
        if not (message.get("progressDetail") and self._exchange.is_held_back):
            self._exchange.send_document(message)


def failure(error: BerthError) -> dict[str, object]:
    """Return the last message of a build that failed: only a command's code is a number of its own."""
    from berth.builds.output import CommandFailed

    detail: dict[str, object] = {"message": error.message}
    if isinstance(error, CommandFailed):
        detail = {"code": error.exit_code, **detail}
    return {"errorDetail": detail, "error": error.message}


def request_of(call: Call) -> BuildRequest:
    """Return what a request asks for."""
    from berth.builds.requests import BuildRequest

    if call.text("version", "1") not in ("", "1"):
        raise InvalidArgument(f"invalid version {call.text('version')!r}")
    isolation = call.text("isolation")
    if isolation not in ("", "default"):
        raise InvalidArgument(f'Unsupported isolation: "{isolation}"')
    if call.flag("squash"):
        raise InvalidArgument("squash is only supported with experimental mode")
    if call.text("outputs"):
        raise InvalidArgument("outputs are only supported with BuildKit")
    platform = call.text("platform")
    return BuildRequest(
        dockerfile=call.text("dockerfile"),
        remote=call.text("remote"),
        tags=[tag for tag in call.texts("t") if tag],
        target=call.text("target"),
        arguments=call.document("buildargs", dict[str, str | None], {}, called="build args"),
        labels=call.document("labels", dict[str, str], {}),
        cache_from=call.document("cachefrom", list[str], []),
        use_cache=not call.flag("nocache"),
        pull=call.flag("pull"),
        quiet=call.flag("q"),
        remove=call.flag("rm", default=True) if call.text("rm") else True,
        always_remove=call.flag("forcerm"),
        platform=Platform.parse(platform) if platform else None,
        host=host_of(call),
        registries=registries(call.exchange.header(b"x-registry-config") or ""),
    )


def buildkit_options(call: Call) -> dict[str, str]:
    """Return what a request of BuildKit's kind asks for, as attributes of the frontend."""
    remote = call.text("remote")
    if remote == "upload-request":
        raise Unsupported("an archive is not taken this way", hint="set DOCKER_BUILDKIT=0")
    arguments = call.document("buildargs", dict[str, str | None], {}, called="build args")
    labels = call.document("labels", dict[str, str], {})
    hosts = [host for text in call.texts("extrahosts") for host in text.split(",") if host]
    ulimits = call.document("ulimits", list[Ulimit], [])
    found = {
        **{f"build-arg:{key}": value for key, value in arguments.items() if value is not None},
        **{f"label:{key}": value for key, value in labels.items()},
        "filename": call.text("dockerfile"),
        "target": call.text("target"),
        "platform": call.text("platform"),
        "cache-from": ",".join(call.document("cachefrom", list[str], [])),
        "context": "" if remote == "client-session" else remote,
        "image-resolve-mode": "pull" if call.flag("pull") else "",
        "add-hosts": ",".join(host.replace(":", "=", 1) for host in hosts),
        "force-network-mode": call.text("networkmode").replace("default", ""),
        "shm-size": str(call.integer("shmsize") or ""),
        "ulimit": ",".join(f"{one.name}={one.soft}:{one.hard}" for one in ulimits),
        "cgroup-parent": call.text("cgroupparent"),
    }
    nothing_cached = {"no-cache": ""} if call.flag("nocache") else {}
    return {**{key: value for key, value in found.items() if value}, **nothing_cached}


class Exporter(msgspec.Struct, rename="pascal"):
    """What such a request wants of the result."""

    type: str
    attrs: dict[str, str] = {}


def buildkit_outputs(call: Call) -> list[dict[str, object]]:
    """Return what is to become of the image: it gets names, or goes to the client."""
    names = ",".join(tag for tag in call.texts("t") if tag)
    outputs = call.document("outputs", list[Exporter], [])
    named = Exporter("moby", {"name": names})
    return [{"Type": one.type, "Attrs": one.attrs} for one in outputs or [named]]


def host_of(call: Call) -> HostConfig:
    """Return how the containers of RUN are limited and connected."""
    host = HostConfig(
        memory=call.integer("memory") or 0,
        memory_swap=call.integer("memswap") or 0,
        cpu_shares=call.integer("cpushares") or 0,
        cpuset_cpus=call.text("cpusetcpus"),
        cpuset_mems=call.text("cpusetmems"),
        cpu_period=call.integer("cpuperiod") or 0,
        cpu_quota=call.integer("cpuquota") or 0,
        shm_size=call.integer("shmsize") or 0,
        cgroup_parent=call.text("cgroupparent"),
        network_mode=call.text("networkmode") or "bridge",
        extra_hosts=[host for text in call.texts("extrahosts") for host in text.split(",") if host],
        ulimits=call.document("ulimits", list[Ulimit], []),
        security_opt=call.document("securityopt", list[str], []),
    )
    if host.network_mode == "default":
        host.network_mode = "bridge"
    return host


def registries(header: str) -> dict[str, str]:
    """Read X-Registry-Config: credentials by server, each as X-Registry-Auth has them."""
    if not header:
        return {}
    try:
        data = base64.b64decode(header + "=" * (-len(header) % 4), altchars=b"-_")
        found = msgspec.json.decode(data, type=dict[str, dict[str, str]] | None) or {}
    except (binascii.Error, ValueError, msgspec.DecodeError) as error:
        raise InvalidArgument(f"invalid X-Registry-Config header: {error}") from None
    result = {}
    for server, entry in found.items():
        host = server.removeprefix("https://").removeprefix("http://").partition("/")[0]
        host = DEFAULT_DOMAIN if host in HUB_DOMAINS else host
        result[host] = base64.urlsafe_b64encode(msgspec.json.encode(entry)).decode()
    return result
