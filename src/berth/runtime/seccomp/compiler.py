"""Compiler of ``linux.seccomp``: a binary search over the system call's number per architecture.

Where several rules name a call, the first whose conditions hold decides, and those without conditions
come last, wherever they stand. A call that no rule names gets the default action; if that refuses, a call
with a number above all that the document names gets ENOSYS, so that programs try an older call
instead (what runc does). An architecture that the document does not list ends the process.
https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#seccomp
"""

from __future__ import annotations

from berth.errors import InvalidArgument, Unsupported
from berth.kernel.libc import MACHINE
from berth.runtime.seccomp import actions, assembler, conditions, tables
from berth.runtime.seccomp.assembler import Assembler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.oci.runtime_spec import Seccomp, SeccompArg, SeccompSyscall

    # What happens to a call: conditional actions in order, and what holds when none applies.
    Decision = tuple[tuple[tuple[tuple[SeccompArg, ...], int], ...], int]
    # Decisions of a span of numbers: the first number of each stretch, ascending from 0.
    Stretches = list[tuple[int, Decision]]

X32_BIT = 0x40000000
TRACER_SKIPS = (
    0xFFFFFFFF  # a tracer's way to say "no call" (ptrace(2)); it has no architecture's mark
)
# ARM's own calls (set_tls, …) lie far above the others and say nothing about what is new.
FIRST_PRIVATE = 0x0F0000

# The kernel's AUDIT_ARCH_*.
AUDIT = {
    "x86_64": 0xC000003E,
    "i386": 0x40000003,
    "x32": 0xC000003E,
    "aarch64": 0xC00000B7,
    "arm": 0x40000028,
}
ARCHITECTURES = {
    "SCMP_ARCH_X86_64": "x86_64",
    "SCMP_ARCH_X86": "i386",
    "SCMP_ARCH_X32": "x32",
    "SCMP_ARCH_AARCH64": "aarch64",
    "SCMP_ARCH_ARM": "arm",
}
WIDE = ("x86_64", "aarch64")
NATIVE = {"x86_64": "x86_64", "aarch64": "aarch64"}


def compile_filter(seccomp: Seccomp, *, machine: str = MACHINE) -> bytes:
    """Return struct sock_filter[] for the document.

    Raises InvalidArgument for what the specification does not allow, Unsupported for a machine without
    a table of system calls. Unknown names of calls and architectures of other machines are passed over.
    """
    if machine not in NATIVE:
        raise Unsupported(f"compile seccomp filter: no system call table for {machine}")
    program = Assembler()
    foreign = program.finish(actions.KILL_PROCESS)
    chosen = _architectures(seccomp, machine)
    starts: dict[int, int] = {}
    if "x32" in chosen or "x86_64" in chosen:
        starts[AUDIT["x86_64"]] = _both_x86_64(program, seccomp, chosen)
    for name in chosen:
        if name not in ("x32", "x86_64"):
            starts[AUDIT[name]] = _load_and_search(program, seccomp, name)
    label = foreign
    # The machine's own architecture is asked for first, so written last.
    for audit in sorted(starts, key=lambda audit: audit == AUDIT[NATIVE[machine]]):
        label = program.branch(assembler.JUMP_EQUAL, audit, yes=starts[audit], no=label)
    program.load(assembler.ARCHITECTURE, label)
    if len(program) > assembler.MAX_INSTRUCTIONS:
        raise InvalidArgument(
            f"compile seccomp filter: {len(program)} instructions, "
            f"the kernel takes {assembler.MAX_INSTRUCTIONS}"
        )
    return program.program()


def _architectures(seccomp: Seccomp, machine: str) -> list[str]:
    """Return the architectures to filter: the machine's own always, the document's where it has them."""
    native = NATIVE[machine]
    family = ("x86_64", "i386", "x32") if native == "x86_64" else ("aarch64", "arm")
    wanted = {ARCHITECTURES.get(name) for name in seccomp.get("architectures") or ()}
    return [name for name in family if name == native or name in wanted]


def _load_and_search(program: Assembler, seccomp: Seccomp, name: str) -> int:
    label = _search(program, _stretches(seccomp, name), name)
    return program.load(assembler.NUMBER, label)


def _both_x86_64(program: Assembler, seccomp: Seccomp, chosen: list[str]) -> int:
    """Write the part of x86_64 and x32, which only a bit of the number tells apart."""
    stretches = _stretches(seccomp, "x86_64")
    if "x32" in chosen:
        other = _search(program, _stretches(seccomp, "x32"), "x32")
        other = program.mask(~X32_BIT & 0xFFFFFFFF, other)
    else:
        rest = program.finish(actions.default(seccomp))
        other = program.branch(
            assembler.JUMP_EQUAL, TRACER_SKIPS, yes=rest, no=program.finish(actions.KILL_PROCESS)
        )
    label = _search(program, stretches, "x86_64")
    label = program.branch(assembler.JUMP_AT_LEAST, X32_BIT, yes=other, no=label)
    return program.load(assembler.NUMBER, label)


def _stretches(seccomp: Seccomp, architecture: str) -> Stretches:
    """Return what happens to which numbers; neighbours that fare alike are one stretch."""
    decisions = _decisions(seccomp, architecture)
    default: Decision = ((), actions.default(seccomp))
    beyond = default
    ordinary = [number for number in decisions if number < FIRST_PRIVATE]
    if ordinary and actions.refuses(seccomp):
        beyond = ((), actions.errno(actions.ENOSYS))
    last = max(ordinary, default=-1)
    found: Stretches = []
    following = 0
    for number in sorted(decisions):
        if number > following:
            found.append((following, default if number <= last else beyond))
        found.append((number, decisions[number]))
        following = number + 1
    found.append((following, beyond))
    return [s for i, s in enumerate(found) if i == 0 or s[1] != found[i - 1][1]]


def _decisions(seccomp: Seccomp, architecture: str) -> dict[int, Decision]:
    """Return what the rules say of each call that they name, by number."""
    numbers = tables.numbers(architecture)
    default = actions.default(seccomp)
    conditional: dict[int, list[tuple[tuple[SeccompArg, ...], int]]] = {}
    plain: dict[int, int] = {}
    for rule in seccomp.get("syscalls") or ():
        value = actions.value(rule["action"], rule.get("errnoRet"))
        tests = _tests(rule)
        for name in rule["names"]:
            number = numbers.get(name)
            if number is None:
                continue
            chain = conditional.setdefault(number, [])
            if tests == [()]:
                plain.setdefault(number, value)
            else:
                chain.extend((test, value) for test in tests)
    return {n: (tuple(chain), plain.get(n, default)) for n, chain in conditional.items()}


def _tests(rule: SeccompSyscall) -> list[tuple[SeccompArg, ...]]:
    """Return the alternatives of a rule, each a conjunction.

    Conditions on different arguments must all hold; once an argument appears twice, any one is enough.
    """
    found = rule.get("args") or []
    for condition in found:
        conditions.check(condition)
    indexes = [condition["index"] for condition in found]
    if len(indexes) != len(set(indexes)):
        return [(condition,) for condition in found]
    return [tuple(found)]


def _search(program: Assembler, stretches: Stretches, architecture: str) -> int:
    """Write the search among ``stretches``, with the number in the accumulator; return its label."""
    if len(stretches) == 1:
        return _decide(program, stretches[0][1], architecture)
    middle = len(stretches) // 2
    right = _search(program, stretches[middle:], architecture)
    left = _search(program, stretches[:middle], architecture)
    return program.branch(assembler.JUMP_AT_LEAST, stretches[middle][0], yes=right, no=left)


def _decide(program: Assembler, decision: Decision, architecture: str) -> int:
    """Write the conditions of one call, tried in order; return their label."""
    chain, otherwise = decision
    label = program.finish(otherwise)
    for tests, value in reversed(chain):
        refused = label
        label = program.finish(value)
        for test in reversed(tests):
            label = conditions.write(
                program, test, yes=label, no=refused, wide=architecture in WIDE
            )
    return label
