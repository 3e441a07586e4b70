"""COPY and ADD: from an instruction to what a worker is told to copy, and the hash of it."""

from __future__ import annotations

import hashlib
import os
import posixpath
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from berth.builds import fetching, repositories
from berth.builds.context import receive
from berth.builds.layers import Copying, Part
from berth.builds.runs import write_document
from berth.dockerfile import ignore
from berth.dockerfile.modes import Mode
from berth.dockerfile.substitution import Expansion
from berth.errors import Failed, InvalidArgument
from berth.images.records import Image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from berth.builds.context import Context
    from berth.builds.layers import LayerMaker
    from berth.builds.requests import BuildRequest
    from berth.builds.stage import StageState
    from berth.dockerfile.instructions import Copy


@dataclass(slots=True, kw_only=True)
class Gathered:
    """The sources of one instruction."""

    parts: list[Part] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, part: Part, digest: str, count: int) -> None:
        """Add sources."""
        self.parts.append(part)
        self.digests.append(digest)
        self.count += count


class Copies:
    """Prepares what COPY and ADD do, for one build."""

    def __init__(
        self, context: Context, maker: LayerMaker, folder: Path, request: BuildRequest
    ) -> None:
        self._context = context
        self._request = request
        self._maker = maker
        self._folder = folder

    async def prepare(
        self, step: Copy, stage: StageState, origin: Image | Context | None
    ) -> tuple[Copying, str]:
        """Return what is to be copied, and what history says of it. ``origin``: of COPY --from."""
        put_in = Expansion(stage.variables, stage.settings.escape)
        excludes = [ignore.clean(put_in(pattern)) for pattern in step.excludes]
        gathered = Gathered()
        local = [source for word in step.sources if (source := put_in(word))]
        remote = [source for source in local if is_remote(source)] if step.is_add else []
        patterns = [source for source in local if source not in remote]
        if patterns:
            await self._local(gathered, step, patterns, excludes, origin)
        checksum = put_in(step.checksum)
        if checksum and len(local) != 1:
            raise InvalidArgument("checksum can't be specified for multiple sources")
        if checksum and not remote:
            raise InvalidArgument("checksum requires HTTP(S) or Git sources")
        for url in remote:
            if repositories.is_repository(url):
                trusted = not stage.is_triggered and self._is_trusted(url)
                await self._repository(gathered, step, url, checksum, trusted=trusted)
            else:
                await self._remote(gathered, url, checksum, extracts=bool(step.unpack))
        self._documents(gathered, step, put_in.document)
        target = put_in(step.target)
        is_folder = step.parents or target.endswith("/") or target == "."
        if gathered.count > 1 and not is_folder:
            raise Failed(
                f"When using {step.name} with more than one source file, the destination must be a"
                " directory and end with a /"
            )
        owner, mode = put_in(step.owner), put_in(step.mode)
        if mode:
            Mode(mode)  # or it is refused
        digest = joined(gathered.digests)
        flags = "--parents " if step.parents else ""
        flags += f"--chown={owner} " if owner else ""
        flags += f"--unpack={step.unpack} ".lower() if step.unpack is not None else ""
        digest += f" {' '.join(patterns)}" if step.parents else ""
        copying = Copying(
            target=absolute(stage.settings.config.working_dir, target),
            parts=gathered.parts,
            excludes=excludes,
            owner=owner,
            mode=mode,
        )
        return copying, f"{step.name} {flags}{digest} in {target} "

    async def _local(
        self,
        gathered: Gathered,
        step: Copy,
        patterns: list[str],
        excludes: list[str],
        origin: Image | Context | None,
    ) -> None:
        parents = step.parents
        if isinstance(origin, Image):
            part = Part(patterns=patterns, image=origin, parents=parents)
            found = await self._maker.digest(origin, patterns, excludes, parents=parents)
            gathered.add(part, *found)
            return
        context = self._context if origin is None else origin
        extracts = step.is_add and step.unpack is not False
        part = Part(patterns=patterns, folder=context.folder, extracts=extracts, parents=parents)
        gathered.add(part, *await context.digest(patterns, excludes, parents=parents))

    def _is_trusted(self, url: str) -> bool:
        """Say whether a server is one that the client knows of: who wrote the Dockerfile may be another."""
        remote = self._request.remote
        return not remote or repositories.host_of(remote) == repositories.host_of(url)

    async def _repository(
        self, gathered: Gathered, step: Copy, url: str, checksum: str, *, trusted: bool
    ) -> None:
        wanted = repositories.read(url)
        if step.keep_git is not None:
            wanted = replace(wanted, keeps_git=step.keep_git)
        if checksum:
            wanted = replace(wanted, checksum=checksum)
        folder, runtime, offers = self._new_folder(), self._maker.runtime, self._request.offers
        async with (
            self._maker.fetches,
            repositories.fetched(wanted, folder, offers, runtime, trusted=trusted) as snapshot,
            receive(runtime, folder, snapshot.pieces()) as received,
        ):
            digest = f"git:{hashed(f'{snapshot.name}:{wanted.kind()}')}"
        gathered.add(Part(patterns=["."], folder=received.folder), digest, 1)

    async def _remote(self, gathered: Gathered, url: str, checksum: str, *, extracts: bool) -> None:
        name, folder = fetching.name_of(url), self._new_folder()
        digest = await fetching.fetch(url, folder, name)
        if checksum and checksum != f"sha256:{digest}":
            raise Failed(f"digest mismatch sha256:{digest}: {checksum}")
        part = Part(patterns=[name], folder=folder, extracts=extracts)
        gathered.add(part, f"file:{digest}", 1)

    def _documents(self, gathered: Gathered, step: Copy, put_in: Callable[[str], str]) -> None:
        for heredoc in step.heredocs:
            folder = self._new_folder()
            text = put_in(heredoc.content) if heredoc.expands else heredoc.content
            write_document(folder, heredoc.name, text, mode=0o644)
            part = Part(patterns=[heredoc.name], folder=folder)
            gathered.add(part, f"file:{hashed(text)}", 1)

    def _new_folder(self) -> Path:
        path = self._folder / os.urandom(8).hex()
        path.mkdir(mode=0o700)
        return path


def is_remote(source: str) -> bool:
    """Say whether a source of ADD is to be fetched."""
    return fetching.is_url(source) or repositories.is_repository(source)


def hashed(text: str) -> str:
    """Return the sha256 of a text, in digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def joined(digests: list[str]) -> str:
    """Return one hash for those of several kinds of sources."""
    return digests[0] if len(digests) == 1 else f"multi:{hashed(','.join(digests))}"


def absolute(working_directory: str, target: str) -> str:
    """Return where a target is, with the slash at its end that says it is a directory."""
    found = posixpath.normpath(posixpath.join("/", working_directory, target))
    found = "/" + found.lstrip("/")
    is_folder = target.endswith("/") or target in (".", "")
    return f"{found}/" if is_folder and found != "/" else found
