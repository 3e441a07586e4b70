#!/usr/bin/env python3
"""Write the generated part of docs/conformance.md: every operation, parameter, field and flag, and its state.

    .venv/bin/python tools/conformance.py [--check] [engine-api.yaml]

What there could be is read from the Engine API's description (which lies beside the checkout, in shared/)
and from tools/docker_flags.txt; what there is, from the code's own declarations: the table of routes, the
models of requests, the tables of flags. How something differs is what the hand-written rows say.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import re
import sys
from pathlib import Path
from typing import Any

import msgspec
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from berth.api.router import Router  # noqa: E402
from berth.api.routes.table import routes_of  # noqa: E402
from berth.cli import commands  # noqa: E402
from berth.engine import limits, models, networkmodels  # noqa: E402

DOCUMENT = ROOT / "docs/conformance.md"
FLAGS = ROOT / "tools/docker_flags.txt"
MARK = "<!-- From here on written by tools/conformance.py -->"
END = "<!-- Up to here -->"
WORKS, DIFFERS, ABSENT = "works", "differs: see above", "not there"
REFUSED = {
    "SwarmRoutes": "as a Docker without a swarm",
    "PluginRoutes": "as a Docker without plugins",
}
ASKS = ("text", "texts", "flag", "integer", "time_ns", "document")

# Definitions of the description, and the model that a request's body is read into.
BODIES: tuple[tuple[str, str, type[msgspec.Struct]], ...] = (
    ("`POST /containers/create`", "ContainerConfig", models.CreateRequest),
    ("`HostConfig`", "HostConfig", models.HostConfig),
    ("`HealthConfig`", "HealthConfig", models.Healthcheck),
    ("`RestartPolicy`", "RestartPolicy", models.RestartPolicy),
    ("`Mount`", "Mount", models.MountRequest),
    ("`Mount.BindOptions`", "Mount.BindOptions", models.BindOptions),
    ("`Mount.VolumeOptions`", "Mount.VolumeOptions", models.VolumeOptions),
    ("`Mount.ImageOptions`", "Mount.ImageOptions", models.ImageOptions),
    ("`Mount.TmpfsOptions`", "Mount.TmpfsOptions", models.TmpfsOptions),
    ("`DeviceMapping`", "DeviceMapping", models.DeviceMapping),
    ("`DeviceRequest`", "DeviceRequest", models.DeviceRequest),
    ("`EndpointSettings`, as asked for", "EndpointSettings", networkmodels.EndpointRequest),
    ("`POST /containers/{id}/update`", "Resources", models.UpdateRequest),
    ("`POST /volumes/create`", "VolumeCreateRequest", models.VolumeCreate),
)
# What a description says of answers, in a definition that requests share.
ANSWERED = {
    "EndpointSettings": (
        *("NetworkID", "EndpointID", "Gateway", "IPAddress", "IPPrefixLen", "IPv6Gateway"),
        *("GlobalIPv6Address", "GlobalIPv6PrefixLen", "DNSNames"),
    )
}
WINDOWS = (
    "CpuCount",
    "CpuPercent",
    "IOMaximumIOps",
    "IOMaximumBandwidth",
    "ArgsEscaped",
    "Isolation",
)


class Anything:
    """Stands for an engine, of which the table of routes asks nothing yet."""

    def __getattr__(self, name: str) -> Anything:
        return self


def description(path: Path | None) -> dict[str, Any] | None:
    """Return the Engine API's description, None when it is not there."""
    places = [path] if path else [parent / "shared/engine-api.yaml" for parent in ROOT.parents]
    for place in places:
        if place.exists():
            loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
            document: dict[str, Any] = yaml.load(place.read_text(), Loader=loader)  # noqa: S506
            return document
    return None


def noted(text: str) -> set[str]:
    """Return what the hand-written rows of the document speak of: names in backquotes."""
    found: set[str] = set()
    for line in text.splitlines():
        if line.startswith("| "):
            for name in re.findall(r"`([^`]+)`", line.split("|")[1]):
                found.add(name)
                found.add(name.removesuffix("…"))
    return found


# Operations


def operations(api: dict[str, Any], notes: set[str]) -> list[str]:
    """Return the rows of the operations with their parameters."""
    router = Router(routes_of(Anything(), Anything(), Anything()))  # type: ignore[arg-type]
    rows = ["| operation | state | parameters not taken |", "| --- | --- | --- |"]
    for path, verbs in api["paths"].items():
        for verb, operation in verbs.items():
            name = f"{verb.upper()} {path}"
            found = router.find(verb.upper(), re.sub(r"\{[^}]*\}", "x", path))
            if found is None:
                rows.append(f"| `{name}` | {ABSENT} | |")
                continue
            route, _ = found
            owner = route.handler.__qualname__.partition(".")[0]
            state = REFUSED.get(owner) or (DIFFERS if name in notes else WORKS)
            missing = [] if owner in REFUSED else _not_asked(operation, route.handler)
            rows.append(f"| `{name}` | {state} | {' '.join(f'`{m}`' for m in missing)} |")
    return rows


def _not_asked(operation: dict[str, Any], handler: Any) -> list[str]:
    """Return the parameters of a query that the module of a handler never asks for."""
    module = sys.modules[handler.__module__]
    known = _asked(Path(inspect.getfile(module)))
    known |= {"filters", "h", "w", "X-Registry-Auth", "X-Registry-Config"}
    names = [p["name"] for p in operation.get("parameters", []) if p.get("in") == "query"]
    return [name for name in names if name not in known]


def _asked(path: Path) -> set[str]:
    """Return the names of parameters that the calls in a module ask for."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        is_question = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if is_question and node.func.attr in ASKS and node.args:  # type: ignore[union-attr]
            first = node.args[0]  # type: ignore[union-attr]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                found.add(first.value)
    return found


# Fields


def fields(api: dict[str, Any], notes: set[str]) -> list[str]:
    """Return the rows of the fields of requests."""
    rows = ["| in | works | differs: see above | not there |", "| --- | --- | --- | --- |"]
    for title, definition, model in BODIES:
        node = api["definitions"]
        for part in definition.split("."):
            node = _properties(api, node)[part] if node is not api["definitions"] else node[part]
        has = {field.encode_name for field in msgspec.structs.fields(model)}
        groups: dict[str, list[str]] = {WORKS: [], DIFFERS: [], ABSENT: []}
        for name in _properties(api, node):
            if name in ANSWERED.get(definition, ()):
                continue
            if model is models.UpdateRequest and name not in _updated():
                continue  # which Docker passes over, too
            says = {name, f"{definition}.{name}", f"{definition.split('.')[-1]}.{name}"} & notes
            differs = (
                says or name in WINDOWS or any(n.startswith(f"HostConfig.{name}") for n in notes)
            )
            groups[DIFFERS if differs else WORKS if name in has else ABSENT].append(f"`{name}`")
        rows.append(f"| {title} | {' | '.join(' '.join(groups[key]) for key in groups)} |")
    return rows


def _updated() -> set[str]:
    """Return the fields that an update changes."""
    names = {*limits.BLOCK_IO, *limits.CPU, *limits.MEMORY, "pids_limit", "restart_policy"}
    known = msgspec.structs.fields(models.UpdateRequest)
    return {field.encode_name for field in known if field.name in names}


def _properties(api: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """Return the properties of a definition with those that it takes from others."""
    if "$ref" in node:
        return _properties(api, api["definitions"][node["$ref"].rpartition("/")[2]])
    found: dict[str, Any] = {}
    for part in node.get("allOf", []):
        found |= _properties(api, part)
    return found | node.get("properties", {})


# Flags


def flags() -> list[str]:
    """Return the rows of commands: docker's flags that berth's own command line has and has not."""
    rows = ["| command | flags that work | not there |", "| --- | --- | --- |"]
    for line in FLAGS.read_text().splitlines():
        words = line.split()
        if line.startswith("#"):
            continue
        command = " ".join(word for word in words if not word.startswith("--"))
        wanted = [word for word in words if word.startswith("--")]
        name, _ = commands.find(command.split())
        if name not in commands.COMMANDS:
            rows.append(f"| `{command}` | {ABSENT} | |")
            continue
        if " ".join(command.split()[1:]) and name == " ".join(command.split()[1:]):
            continue  # `container run` is `run`
        has = _flags_of(name)
        groups = [
            [f"`{flag}`" for flag in wanted if (flag[2:] in has) == wants]
            for wants in (True, False)
        ]
        rows.append(
            f"| `{command}` | {' '.join(groups[0]) or 'has none'} | {' '.join(groups[1])} |"
        )
    return rows


def _flags_of(name: str) -> set[str]:
    module = importlib.import_module(f"berth.cli.{commands.COMMANDS[name][0]}")
    return {flag[0] for flag in module.VERBS[name][0]}


def generated(api: dict[str, Any], written: str) -> str:
    """Return the generated part; ``written`` is the part before it."""
    notes = noted(written)
    version = api["info"]["version"]
    parts = (
        (
            "## Every operation",
            f"Of version {version}.",
            operations(api, notes),
        ),
        ("## Every field of requests", "", fields(api, notes)),
        ("## Every flag", "Of the docker CLI 28.5, on berth's own command line.", flags()),
    )
    blocks = [
        "\n\n".join(filter(None, (head, text, "\n".join(rows)))) for head, text, rows in parts
    ]
    return f"{MARK}\n\n" + "\n\n".join(blocks) + f"\n\n{END}"


def renewed(api: dict[str, Any], document: str) -> str:
    """Return a document with its generated part as it is to be; the rest stays as it is."""
    written, _, rest = document.partition(MARK)
    _, _, rest = rest.partition(END)
    return written.rstrip() + "\n\n" + generated(api, written) + (rest or "\n")


def main() -> int:
    """Write the document, or say whether it is current."""
    parser = argparse.ArgumentParser()
    parser.add_argument("description", nargs="?", type=Path)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    api = description(options.description)
    if api is None:
        print("conformance: no engine-api.yaml beside this checkout", file=sys.stderr)
        return 2
    before = DOCUMENT.read_text()
    after = renewed(api, before)
    if options.check:
        return int(before != after)
    DOCUMENT.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
