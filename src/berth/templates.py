"""The part of Go's text/template that people use, with the functions of Docker's templates.

``{{.A.B}}``, ``{{json .A}}``, ``{{index .A "key" 0}}``, ``{{len .A}}``, ``{{join .A ", "}}``,
``{{split .A ":"}}``, ``{{upper .A}}``, ``{{lower .A}}``, ``{{println .A}}``, ``{{printf "%s" .A}}``,
``{{slice .A 0 3}}``, ``{{truncate .A 3}}``, ``{{pad .A 1 1}}``, ``{{eq .A "x"}}`` (ne, lt, le, gt, ge, and,
or, not), methods with arguments, pipes, parentheses, ``$``, ``$name := …``, ``if``/``else``, ``range``,
``with``, ``end``, and the trimming ``{{-`` and ``-}}``. What ``json`` shows is the caller's to say.
"""

from __future__ import annotations

from berth.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Node = tuple[str, str, list["Node"], list["Node"]]  # kind, text, body, else
    Function = Callable[..., object]  # type: ignore[explicit-any]  # each has its own arguments


class Scope:
    """The variables of a block, and the functions of the template."""

    def __init__(self, names: dict[str, object], functions: dict[str, Function]) -> None:
        self.names = names
        self.functions = functions

    def inner(self, more: dict[str, object]) -> Scope:
        """Return what holds in a block inside."""
        return Scope({**self.names, **more}, self.functions)


BLOCKS = ("if", "range", "with")


def render(template: str, data: object, functions: dict[str, Function]) -> str:
    """Return the template with the data put in; InvalidArgument when it is malformed.

    ``functions``: more of them, by their names.
    """
    nodes, _ = _nodes(_pieces(template), "")
    return _run(nodes, data, Scope({"$": data}, {**FUNCTIONS, **functions}))


def _pieces(template: str) -> Iterator[tuple[str, str]]:
    """Give ("text", …) and ("action", …) in turn."""
    rest, trim = template, False
    while rest:
        before, opening, after = rest.partition("{{")
        if trim:
            before = before.lstrip()
        if opening and after.startswith(("- ", "-\t")):
            before, after = before.rstrip(), after[2:]
        if before:
            yield "text", before
        if not opening:
            return
        action, closing, rest = after.partition("}}")
        if not closing:
            raise InvalidArgument("template parsing error: unclosed action")
        trim = action.endswith(" -")
        yield "action", action.removesuffix(" -").strip()


def _nodes(pieces: Iterator[tuple[str, str]], inside: str) -> tuple[list[Node], str]:
    """Return the nodes up to the ``end`` or ``else`` of the block, and which of the two it was."""
    nodes: list[Node] = []
    for kind, text in pieces:
        word, _, rest = text.partition(" ")
        if kind == "text":
            nodes.append(("text", text, [], []))
        elif word in BLOCKS:
            nodes.append(_block(word, rest, pieces))
        elif word in ("end", "else"):
            if not inside:
                raise InvalidArgument(f"template parsing error: unexpected {{{{{text}}}}}")
            return nodes, text
        elif not text.startswith("/*"):
            nodes.append(("print", text, [], []))
    if inside:
        raise InvalidArgument("template parsing error: unexpected EOF")
    return nodes, ""


def _block(word: str, expression: str, pieces: Iterator[tuple[str, str]]) -> Node:
    """Return a block with what follows it up to its ``end``, an ``else if`` as a block inside its else."""
    body, stop = _nodes(pieces, word)
    other: list[Node] = []
    if stop.startswith("else if "):
        other = [_block("if", stop.removeprefix("else if "), pieces)]
    elif stop == "else":
        other, _ = _nodes(pieces, word)
    return word, expression, body, other


def _run(nodes: list[Node], dot: object, scope: Scope) -> str:
    out = []
    for kind, text, body, other in nodes:
        if kind == "text":
            out.append(text)
        elif kind == "print":
            name, assigned, expression = text.partition(":=")
            if assigned and name.startswith("$"):
                scope.names[name.strip()] = _evaluate(expression, dot, scope)
            else:
                out.append(shown(_evaluate(text, dot, scope)))
        elif kind == "range":
            out.append(_range(text, (body, other), dot, scope))
        else:
            value = _evaluate(text, dot, scope)
            out.append(
                _run(body, value if kind == "with" else dot, scope.inner({}))
                if value
                else _run(other, dot, scope.inner({}))
            )
    return "".join(out)


def _range(text: str, blocks: tuple[list[Node], list[Node]], dot: object, scope: Scope) -> str:
    names, assigned, expression = text.partition(":=")
    value = _evaluate(expression if assigned else text, dot, scope)
    pairs: list[tuple[object, object]] = []
    if isinstance(value, dict):
        pairs = sorted(value.items())
    elif isinstance(value, list):
        pairs = list(enumerate(value))
    if not pairs:
        return _run(blocks[1], dot, scope.inner({}))
    targets = [name.strip() for name in names.split(",")] if assigned else []
    out = []
    for key, item in pairs:
        values = (item,) if len(targets) == 1 else (key, item)
        inner = scope.inner(dict(zip(targets, values, strict=False)))
        out.append(_run(blocks[0], item, inner))
    return "".join(out)


def shown(value: object) -> str:
    """Return a value as Go prints it."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{' '.join(shown(item) for item in value)}]"
    if isinstance(value, dict):
        return f"map[{' '.join(f'{key}:{shown(item)}' for key, item in sorted(value.items()))}]"
    return str(value)


def _words(text: str) -> list[str]:
    """Split an expression into words; strings in quotes and parts in parentheses are one word each."""
    words, word, quote, depth = [], "", "", 0
    for letter in text:
        if quote:
            quote = "" if letter == quote and not word.endswith("\\") else quote
        elif letter in "\"'`":
            quote = letter
        elif letter in "()":
            depth += 1 if letter == "(" else -1
        if not quote and not depth and letter in " |" and letter not in "\"'`":
            words += [word] if word else []
            words += ["|"] if letter == "|" else []
            word = ""
        else:
            word += letter
    if quote or depth:
        raise InvalidArgument(f"template parsing error: unterminated {text!r}")
    return words + ([word] if word else [])


def _evaluate(text: str, dot: object, scope: Scope) -> object:
    """Return the value of a pipeline; each stage gets the one before as its last argument."""
    stages: list[list[str]] = [[]]
    for word in _words(text):
        if word == "|":
            stages.append([])
        else:
            stages[-1].append(word)
    value: object = None
    for index, words in enumerate(stages):
        if not words:
            raise InvalidArgument(f"template parsing error: missing value in {text!r}")
        piped = [value] if index else []
        arguments = [_operand(word, dot, scope) for word in words[1:]] + piped
        value = _call(words[0], arguments, dot, scope)
    return value


def _call(word: str, arguments: list[object], dot: object, scope: Scope) -> object:
    function = scope.functions.get(word) or _operand(word, dot, scope)
    if callable(function):
        try:
            result: object = function(*arguments)
        except (TypeError, ValueError, LookupError) as error:
            raise InvalidArgument(f"template error: {word}: {error}") from error
        return result
    if arguments:
        raise InvalidArgument(f'template parsing error: function "{word}" not defined')
    return function


def _operand(word: str, dot: object, scope: Scope) -> object:
    if word[0] == "(":
        inner, _, path = word[1:].rpartition(")")
        return _follow(_evaluate(inner, dot, scope), path)
    if word[0] == '"':
        return _unquoted(word[1:-1])
    if word[0] in "'`":
        return word[1:-1]
    if word[0] == ".":
        return _follow(dot, word)
    if word[0] == "$":
        name, point, path = word.partition(".")
        return _follow(scope.names.get(name), point + path)
    if word == "nil":
        return None
    if word in ("true", "false"):
        return word == "true"
    if word.lstrip("-").isdecimal():
        return int(word)
    raise InvalidArgument(f'template parsing error: function "{word}" not defined')


def _follow(value: object, path: str) -> object:
    for key in path.split("."):
        if not key:
            continue
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, dict) and not value:
            return None
        else:
            raise InvalidArgument(f'template error: map has no entry for key "{key}"')
    return value


def _unquoted(text: str) -> str:
    try:
        return text.encode("latin-1", "backslashreplace").decode("unicode_escape")
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"template parsing error: {error.reason} in {text!r}") from error


def _index(value: object, *keys: object) -> object:
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key, "")
        elif isinstance(value, list) and isinstance(key, int):
            value = value[key]
        else:
            raise TypeError(f"cannot index with {key!r}")
    return value


def _length(value: object) -> int:
    if not isinstance(value, str | list | dict):
        return 0
    return len(value)


def _join(value: object, separator: object) -> str:
    parts = value if isinstance(value, list) else []
    return str(separator).join(shown(part) for part in parts)


def _split(value: object, separator: object) -> list[object]:
    return list(str(value).split(str(separator)))


def _printf(form: object, *values: object) -> str:
    return str(form).replace("%v", "%s").replace("%q", '"%s"') % tuple(shown(v) for v in values)


def _truncate(value: object, length: object) -> str:
    return str(value)[: int(str(length))]


def _slice(value: object, start: int = 0, end: int | None = None) -> object:
    if not isinstance(value, str | list):
        raise TypeError("cannot slice")
    return value[start:end]


def _pad(value: object, before: object, after: object) -> str:
    text = str(value)
    return " " * int(str(before)) + text + " " * int(str(after)) if text else text


FUNCTIONS: dict[str, Function] = {
    "index": _index,
    "len": _length,
    "join": _join,
    "split": _split,
    "upper": lambda value: str(value).upper(),
    "lower": lambda value: str(value).lower(),
    "title": lambda value: str(value).title(),
    "truncate": _truncate,
    "pad": _pad,
    "slice": _slice,
    "print": lambda *values: "".join(shown(value) for value in values),
    "println": lambda *values: " ".join(shown(value) for value in values) + "\n",
    "printf": _printf,
    "eq": lambda first, *others: first in others,
    "ne": lambda first, second: first != second,
    "lt": lambda first, second: first < second,
    "le": lambda first, second: first <= second,
    "gt": lambda first, second: first > second,
    "ge": lambda first, second: first >= second,
    "not": lambda value: not value,
    "and": lambda *values: next((value for value in values if not value), values[-1]),
    "or": lambda *values: next((value for value in values if value), values[-1]),
}
