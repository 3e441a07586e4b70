"""COPY and ADD: from an instruction to what a worker is told to copy, and the hash of it."""

from __future__ import annotations

import hashlib
import posixpath
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from berth.builds import fetching
from berth.builds.layers import Copying, Part
from berth.builds.runs import write_document
from berth.dockerfile import ignore
from berth.dockerfile.modes import Mode
from berth.dockerfile.substitution import Expansion
from berth.errors import Failed, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from berth.builds.context import Context
    from berth.builds.layers import LayerMaker
    from berth.builds.stage import StageState
    from berth.dockerfile.instructions import Copy

    Document = dict[str, object]


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

    def __init__(self, context: Context, maker: LayerMaker, folder: Path) -> None:
        self._context = context
        self._maker = maker
        self._folder = folder

    async def prepare(
        self, step: Copy, stage: StageState, origin: Document | Context | None
    ) -> tuple[Copying, str]:
        """Return what is to be copied, and what history says of it. ``origin``: of COPY --from."""
        put_in = Expansion(stage.variables, stage.settings.escape)
        excludes = [ignore.clean(put_in(pattern)) for pattern in step.excludes]
        gathered = Gathered()
        local = [source for word in step.sources if (source := put_in(word))]
        remote = [source for source in local if fetching.is_url(source) and step.is_add]
        for source in local if step.is_add else ():
            fetching.refuse_git(source)
        patterns = [source for source in local if source not in remote]
        if patterns:
            await self._local(gathered, step, patterns, excludes, origin)
        for url in remote:
            await self._remote(gathered, url, step.checksum)
        if step.checksum and not remote:
            raise InvalidArgument("checksum can't be specified for non-HTTP(S) sources")
        self._documents(gathered, step, put_in.document)
        target = put_in(step.target)
        if gathered.count > 1 and not (target.endswith("/") or target == "."):
            raise Failed(
                f"When using {step.name} with more than one source file, the destination must be a"
                " directory and end with a /"
            )
        owner, mode = put_in(step.owner), put_in(step.mode)
        if mode:
            Mode(mode)  # or it is refused
        digest = joined(gathered.digests)
        chown = f"--chown={owner} " if owner else ""
        copying = Copying(
            target=absolute(stage.settings.config.working_dir, target),
            parts=gathered.parts,
            excludes=excludes,
            owner=owner,
            mode=mode,
        )
        return copying, f"{step.name} {chown}{digest} in {target} "

    async def _local(
        self,
        gathered: Gathered,
        step: Copy,
        patterns: list[str],
        excludes: list[str],
        origin: Document | Context | None,
    ) -> None:
        if isinstance(origin, dict):
            part = Part(patterns=patterns, source=origin)
            gathered.add(part, *await self._maker.digest(origin, patterns, excludes))
            return
        context = self._context if origin is None else origin
        part = Part(patterns=patterns, folder=context.folder, extracts=step.is_add)
        gathered.add(part, *await context.digest(patterns, excludes))

    async def _remote(self, gathered: Gathered, url: str, checksum: str) -> None:
        name, folder = fetching.name_of(url), self._new_folder()
        digest = await fetching.fetch(url, folder, name)
        if checksum and checksum != f"sha256:{digest}":
            raise Failed(f"digest mismatch sha256:{digest}: {checksum}")
        gathered.add(Part(patterns=[name], folder=folder), f"file:{digest}", 1)

    def _documents(self, gathered: Gathered, step: Copy, put_in: Callable[[str], str]) -> None:
        for heredoc in step.heredocs:
            folder = self._new_folder()
            text = put_in(heredoc.content) if heredoc.expands else heredoc.content
            write_document(folder, heredoc.name, text, mode=0o644)
            part = Part(patterns=[heredoc.name], folder=folder)
            gathered.add(part, f"file:{hashed(text)}", 1)

    def _new_folder(self) -> Path:
        path = self._folder / secrets.token_hex(8)
        path.mkdir(mode=0o700)
        return path


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
