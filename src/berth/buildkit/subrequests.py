"""What a Dockerfile's frontend is asked beside builds: checks, outlines, targets, and which of these it has.

Answers are documents and the same as text, byte for byte as BuildKit's frontend writes them.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from berth.buildkit.located import ranges_of
from berth.dockerfile.survey import description_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from berth.buildkit.located import Dockerfile, Lines
    from berth.dockerfile import stages
    from berth.dockerfile.lint import Finding
    from berth.dockerfile.stages import Stage
    from berth.dockerfile.survey import Argument, Loan, Survey, Surveyed

    Document = dict[str, object]
    Answer = Mapping[str, bytes]

DESCRIBE, LINT = "frontend.subrequests.describe", "frontend.lint"
OUTLINE, TARGETS = "frontend.outline", "frontend.targets"
ALL = (DESCRIBE, LINT, OUTLINE, TARGETS)
VERSION = "1.0.0"
RESULTS = ("result.json", "result.txt")
RULE = "--------------------\n"
NARROW, WIDE = 1, 3  # blanks between columns
MAX_TABLE = 1 << 22  # letters of one that has columns
# Go writes these as escapes, lest they end up in a page.
ESCAPES = {b"<": b"\\u003c", b">": b"\\u003e", b"&": b"\\u0026"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildError:
    """What is wrong with a Dockerfile that is checked."""

    message: str
    lines: Lines


def answer_of(document: object, text: str, **more: bytes) -> Answer:
    """Return a document and a text as the metadata of a result."""
    data = msgspec.json.format(msgspec.json.encode(document), indent=2)
    for plain, escape in ESCAPES.items():
        data = data.replace(plain, escape)
    return {"result.json": data, "result.txt": text.encode(), "version": VERSION.encode(), **more}


def location(lines: Lines) -> Document:
    """Return lines as BuildKit's Location."""
    return {"ranges": ranges_of(lines)}


def table(rows: Sequence[Sequence[str]], padding: int) -> str:
    """Return rows with their columns one below the other, unless they are too wide; the last one as it is."""
    *widths, _ = [max(map(len, column)) + padding for column in zip(*rows, strict=True)]
    if sum(widths) * len(rows) > MAX_TABLE:
        widths = [0 for _ in widths]
    text = ""
    for *cells, last in rows:
        blanks = [
            max(width - len(cell), padding) for cell, width in zip(cells, widths, strict=True)
        ]
        text += "".join(cell + " " * more for cell, more in zip(cells, blanks, strict=True))
        text += f"{last}\n"
    return text


def encoded(source: Dockerfile) -> str:
    """Return a Dockerfile as documents have bytes."""
    return base64.b64encode(source.text.encode()).decode()


# Which there are


def described() -> Answer:
    """Say which requests there are."""
    requests = [
        request(
            OUTLINE,
            "List all parameters current build target supports",
            [{"name": "target", "description": "Target build stage"}],
        ),
        request(TARGETS, "List all targets current build supports", []),
        request(DESCRIBE, "List available subrequest types", None),
    ]
    rows = [["NAME", "VERSION", "DESCRIPTION"]]
    for one in requests:
        name = str(one["name"]).removeprefix("frontend.")
        rows.append([name, VERSION, str(one["description"])])
    return answer_of(requests, table(rows, NARROW))


def request(name: str, description: str, options: list[Document] | None) -> Document:
    """Return what is said of a request."""
    return {
        "name": name,
        "version": VERSION,
        "type": "rpc",
        "description": description,
        "opts": options,
        "inputs": None,
        "metadata": [{"name": result, "description": ""} for result in RESULTS],
        "refs": None,
    }


# Targets


def targets(dockerfile: stages.Dockerfile, source: Dockerfile) -> Answer:
    """Say what can be built."""
    rows, found = [["TARGET", "DESCRIPTION"]], []
    for stage in dockerfile.stages:
        head, is_default = stage.head, stage is dockerfile.stages[-1]
        facts = {
            "name": head.stage,
            "default": is_default,
            "description": description_of(head, head.stage),
            "base": head.base,
            "platform": head.platform,
            "location": location(head.lines),
        }
        found.append({key: value for key, value in facts.items() if value})
        default = "(default)" if is_default else ""
        rows.append([f"{head.stage} {default}".strip(), str(facts["description"])])
    document = {"targets": found, "sources": [encoded(source)]}
    return answer_of(document, table(rows, NARROW))


# Outlines


def outline(survey: Survey, target: Stage, source: Dockerfile) -> Answer:
    """Say what can be given to a build of a stage, once the survey has gone through what it needs."""
    args, secrets, agents = _gathered(survey, target)
    name, description = target.head.stage, description_of(target.head, target.head.stage)
    document = {
        "name": name,
        "description": description,
        "args": [_argument(one) for one in sorted(args.values(), key=_place)],
        "secrets": [_loan(one) for one in sorted(secrets.values(), key=_place)],
        "ssh": [_loan(one) for one in sorted(agents.values(), key=_place)],
        "sources": [encoded(source)],
    }
    text = ""
    if name:
        rows = [["TARGET:", name], *([["DESCRIPTION:", description]] if description else [])]
        text += table(rows, NARROW) + "\n"
    if args:
        shown = [
            [one.name, one.value, one.description] for one in sorted(args.values(), key=_place)
        ]
        text += table([["BUILD ARG", "VALUE", "DESCRIPTION"], *shown], WIDE) + "\n"
    for title, loans in (("SECRET", secrets), ("SSH", agents)):
        if loans:
            lent = sorted(loans.values(), key=_place)
            rows = [[loan.name, "true" if loan.required else ""] for loan in lent]
            text += table([[title, "REQUIRED"], *rows], WIDE) + "\n"
    return answer_of({key: value for key, value in document.items() if value}, text)


def _place(one: Argument | Loan) -> int:
    return one.lines[0]


def _argument(one: Argument) -> Document:
    facts = {"name": one.name, "description": one.description, "value": one.value}
    return {**{k: v for k, v in facts.items() if v}, "location": location(one.lines)}


def _loan(one: Loan) -> Document:
    required = {"required": True} if one.required else {}
    return {"name": one.name, **required, "location": location(one.lines)}


def _gathered(
    survey: Survey, target: Stage
) -> tuple[dict[str, Argument], dict[str, Loan], dict[str, Loan]]:
    """Return what a stage, and those that it builds upon or copies from, take; the nearest counts."""
    args: dict[str, Argument] = {}
    secrets: dict[str, Loan] = {}
    agents: dict[str, Loan] = {}
    for stage in _reached(survey, target):
        for name in _used(stage):
            args.setdefault(name, stage.arguments[name])
        for found, known in ((stage.secrets, secrets), (stage.agents, agents)):
            for name, loan in found.items():
                known.setdefault(name, loan)
    return args, secrets, agents


def _reached(survey: Survey, target: Stage) -> Iterator[Surveyed]:
    pending, seen = [target.index], set[int]()
    while pending:
        index = pending.pop()
        if index in seen or index not in survey.stages:
            continue
        seen.add(index)
        stage = survey.stages[index]
        yield stage
        pending += reversed(stage.origins)
        if stage.above is not None:
            pending.append(stage.above.stage.index)


def _used(stage: Surveyed) -> Iterator[str]:
    """Yield the arguments that a stage uses, and those that their defaults are made of."""
    pending, seen = sorted(stage.used), set[str]()
    while pending:
        name = pending.pop()
        if name in seen or name not in stage.arguments:
            continue
        seen.add(name)
        yield name
        pending += sorted(stage.arguments[name].needs)


# Checks


def checked(source: Dockerfile, findings: Sequence[Finding], error: BuildError | None) -> Answer:
    """Say what checks have found, and what is wrong with a Dockerfile, if anything is."""
    ordered = sorted(findings, key=lambda finding: finding.lines[0])
    warnings = [_warning(finding) for finding in ordered]
    document: Document = {
        "warnings": warnings or None,
        "sources": [{"filename": source.name, "data": encoded(source), "language": "Dockerfile"}],
    }
    if error is not None:
        where = location(error.lines) if error.lines[0] else {}
        document["buildError"] = {"message": error.message, "location": where}
    text = "".join(_shown(source, finding) for finding in ordered)
    status = b"1" if findings or error else b"0"
    return answer_of(document, text, **{"result.statuscode": status})


def _warning(finding: Finding) -> Document:
    rule = finding.rule
    return {
        "ruleName": rule.name,
        "description": rule.description,
        **({"url": rule.url} if rule.url else {}),
        "detail": finding.detail,
        "location": location(finding.lines),
    }


def _shown(source: Dockerfile, finding: Finding) -> str:
    rule = finding.rule
    url = f" - {rule.url}" if rule.url else ""
    return f"\nWARNING: {rule.name}{url}\n{finding.detail}\n{excerpt(source, finding.lines)}"


def excerpt(source: Dockerfile, lines: Lines) -> str:
    """Return lines and some around them, marked, as clients show them."""
    rows = source.rows
    first, last = lines[0], min(lines[1], len(rows))
    wanted, padded = (4 if first == last else 2), 0
    while padded < wanted:
        above, below = first > 1, last != len(rows)
        first, last = first - above, last + below
        padded += 1 + above + below
    text = f"{source.name}:{lines[0]}\n{RULE}"
    for at in range(first, last + 1):
        mark = ">>>" if lines[0] <= at <= lines[1] else "   "
        text += f" {at:3} | {mark} {rows[at - 1]}\n"
    return text + RULE
