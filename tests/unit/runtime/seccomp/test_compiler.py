from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.errors import InvalidArgument, Unsupported
from berth.runtime.seccomp import tables
from berth.runtime.seccomp.compiler import AUDIT, X32_BIT, compile_filter
from support import libseccomp
from support.bpf import run, seccomp_data

ALLOW, EPERM, ENOSYS = 0x7FFF0000, 0x00050001, 0x00050026
KILL_PROCESS, KILL_THREAD = 0x80000000, 0
ALL_X86 = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
X86_64 = AUDIT["x86_64"]
NUMBERS = tables.numbers("x86_64")


def document(*rules, default="SCMP_ACT_ERRNO", architectures=("SCMP_ARCH_X86_64",), **more):
    return {
        "defaultAction": default,
        "architectures": list(architectures),
        "syscalls": list(rules),
        **more,
    }


def rule(*names, action="SCMP_ACT_ALLOW", args=None, **more):
    found = {"names": list(names), "action": action, **more}
    return {**found, "args": args} if args else found


def arg(index, op, value, two=0):
    return {"index": index, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": two}


def verdict(program, name, *arguments, architecture="x86_64"):
    number = tables.numbers(architecture)[name]
    if architecture == "x32":
        number |= X32_BIT
    return run(program, seccomp_data(number, AUDIT[architecture], arguments))


def compiled(*rules, **more):
    return compile_filter(document(*rules, **more), machine="x86_64")


def test_a_named_call_is_allowed_and_another_is_refused():
    program = compiled(rule("read", "write"))
    assert verdict(program, "read") == ALLOW
    assert verdict(program, "write") == ALLOW
    assert verdict(program, "open") == ENOSYS  # above all that are named
    assert verdict(compiled(rule("read", "reboot")), "open") == EPERM


def test_a_call_younger_than_the_profile_gets_enosys():
    program = compiled(rule("read", "clone3"))
    assert verdict(program, "clone3") == ALLOW
    assert verdict(program, "mount") == EPERM
    assert verdict(program, "landlock_add_rule") == ENOSYS
    assert run(program, seccomp_data(9999, X86_64)) == ENOSYS


def test_a_default_that_allows_has_no_enosys():
    program = compiled(rule("mount", action="SCMP_ACT_ERRNO"), default="SCMP_ACT_ALLOW")
    assert verdict(program, "mount") == EPERM
    assert run(program, seccomp_data(9999, X86_64)) == ALLOW


@pytest.mark.parametrize(
    ("action", "value"),
    [
        ("SCMP_ACT_KILL", KILL_THREAD),
        ("SCMP_ACT_KILL_THREAD", KILL_THREAD),
        ("SCMP_ACT_KILL_PROCESS", KILL_PROCESS),
        ("SCMP_ACT_TRAP", 0x00030000),
        ("SCMP_ACT_ERRNO", EPERM),
        ("SCMP_ACT_TRACE", 0x7FF00001),
        ("SCMP_ACT_LOG", 0x7FFC0000),
        ("SCMP_ACT_NOTIFY", 0x7FC00000),
    ],
)
def test_every_action_has_its_value(action, value):
    assert verdict(compiled(rule("read", action=action)), "read") == value


def test_an_errno_of_its_own_is_returned():
    program = compiled(
        rule("read", action="SCMP_ACT_ERRNO", errnoRet=95), rule("reboot"), defaultErrnoRet=13
    )
    assert verdict(program, "read") == 0x0005005F
    assert verdict(program, "write") == 0x0005000D


def test_an_architecture_that_is_not_listed_ends_the_process():
    program = compiled(rule("read", "reboot"))
    assert verdict(program, "read", architecture="i386") == KILL_PROCESS
    assert verdict(program, "read", architecture="x32") == KILL_PROCESS
    assert run(program, seccomp_data(63, AUDIT["aarch64"])) == KILL_PROCESS


def test_a_tracer_may_skip_a_call():
    assert run(compiled(rule("read", "reboot")), seccomp_data(-1, X86_64)) == EPERM


def test_each_architecture_goes_by_its_own_numbers():
    program = compiled(rule("readv", "reboot"), architectures=ALL_X86)
    for architecture in ("x86_64", "i386", "x32"):
        assert verdict(program, "readv", architecture=architecture) == ALLOW
        assert verdict(program, "getpid", architecture=architecture) == EPERM
    assert run(program, seccomp_data(NUMBERS["readv"] | X32_BIT, X86_64)) == EPERM


def test_arm_is_compiled_for_arm():
    listed = ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_X86"]
    program = compile_filter(
        document(rule("read", "set_tls"), architectures=listed), machine="aarch64"
    )
    assert verdict(program, "read", architecture="aarch64") == ALLOW
    assert verdict(program, "set_tls", architecture="arm") == ALLOW
    assert verdict(program, "mount", architecture="arm") == ENOSYS
    assert verdict(program, "read", architecture="i386") == KILL_PROCESS


def test_conditions_on_different_arguments_must_all_hold():
    program = compiled(rule("ioctl", "reboot", args=[arg(0, "EQ", 1), arg(1, "GT", 5)]))
    assert verdict(program, "ioctl", 1, 6) == ALLOW
    assert verdict(program, "ioctl", 1, 5) == EPERM
    assert verdict(program, "ioctl", 2, 6) == EPERM


def test_conditions_on_one_argument_are_alternatives():
    program = compiled(rule("ioctl", "reboot", args=[arg(0, "EQ", 1), arg(0, "EQ", 7)]))
    assert [verdict(program, "ioctl", n) for n in (1, 7, 2)] == [ALLOW, ALLOW, EPERM]


def test_a_conditional_rule_comes_before_an_unconditional_one():
    refusal = rule("ioctl", action="SCMP_ACT_ERRNO", errnoRet=25, args=[arg(1, "EQ", 0x5412)])
    for rules in ((rule("ioctl", "reboot"), refusal), (refusal, rule("ioctl", "reboot"))):
        program = compiled(*rules)
        assert verdict(program, "ioctl", 0, 0x5412) == 0x00050019
        assert verdict(program, "ioctl", 0, 0x5413) == ALLOW


HOLDS = {
    "EQ": lambda a, v, t: a == v,
    "NE": lambda a, v, t: a != v,
    "LT": lambda a, v, t: a < v,
    "LE": lambda a, v, t: a <= v,
    "GT": lambda a, v, t: a > v,
    "GE": lambda a, v, t: a >= v,
    "MASKED_EQ": lambda a, v, t: a & v == t,
}
WORDS = st.integers(0, 3) | st.integers(0xFFFFFFFE, 0xFFFFFFFF)
LONGS = st.builds(lambda high, low: high << 32 | low, WORDS, WORDS)


@given(op=st.sampled_from(sorted(HOLDS)), value=LONGS, two=LONGS, actual=LONGS)
def test_64_bit_comparisons_are_those_of_integers(op, value, two, actual):
    program = compiled(rule("ioctl", "reboot", args=[arg(2, op, value, two)]))
    wanted = ALLOW if HOLDS[op](actual, value, two) else EPERM
    assert verdict(program, "ioctl", 0, 0, actual) == wanted


@given(st.sets(st.sampled_from(sorted(NUMBERS)), min_size=1), st.randoms())
def test_any_set_of_calls_is_exactly_what_is_allowed(names, random):
    program = compiled(rule(*names), architectures=ALL_X86)
    allowed = {NUMBERS[name] for name in names}
    for number in range(520):
        wanted = ALLOW if number in allowed else EPERM if number < max(allowed) else ENOSYS
        assert run(program, seccomp_data(number, X86_64)) == wanted


def test_jumps_over_more_than_255_instructions_arrive():
    many = [rule("ioctl", args=[arg(1, "EQ", n << 33 | n)]) for n in range(400)]
    program = compiled(rule("read", "reboot"), *many, architectures=ALL_X86)
    assert len(program) // 8 > 1500
    assert verdict(program, "read") == ALLOW
    for n in (0, 1, 199, 399):
        assert verdict(program, "ioctl", 0, n << 33 | n) == ALLOW
        assert verdict(program, "ioctl", 0, n << 33 | n + 1) == EPERM


def test_a_program_too_long_for_the_kernel_is_refused():
    many = [rule("ioctl", args=[arg(1, "EQ", n << 33 | n)]) for n in range(4000)]
    with pytest.raises(InvalidArgument, match="the kernel takes 4096"):
        compiled(*many)


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (rule("read", action="SCMP_ACT_WELCOME"), "action 'SCMP_ACT_WELCOME'"),
        (rule("read", action="SCMP_ACT_ALLOW", errnoRet=1), "takes no errnoRet"),
        (rule("read", action="SCMP_ACT_ERRNO", errnoRet=1 << 16), "errnoRet 65536"),
        (rule("read", args=[arg(6, "EQ", 0)]), "index 6"),
        (rule("read", args=[arg(0, "LIKE", 0)]), "operator 'SCMP_CMP_LIKE'"),
        (rule("read", args=[arg(0, "EQ", -1)]), "value -1"),
    ],
)
def test_a_wrong_rule_is_refused(bad, text):
    with pytest.raises(InvalidArgument, match=text):
        compiled(bad)


def test_an_unknown_call_is_passed_over():
    assert verdict(compiled(rule("read", "no_such_call")), "read") == ALLOW


def test_a_machine_without_tables_is_unsupported():
    with pytest.raises(Unsupported, match="riscv64"):
        compile_filter(document(rule("read")), machine="riscv64")


@pytest.mark.skipif(not libseccomp.is_there(), reason="libseccomp is not installed")
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["read", "ioctl", "socket", "prctl", "clone", "reboot"]),
            st.lists(
                st.tuples(st.integers(0, 5), st.sampled_from(sorted(HOLDS)), LONGS, LONGS),
                min_size=1,
                max_size=3,
                unique_by=lambda condition: condition[0],
            ),
        ),
        max_size=4,
    ),
    st.lists(LONGS, min_size=6, max_size=6),
)
def test_libseccomp_agrees(rules, actual):
    wanted = document(
        rule("getpid", "reboot"),
        *(rule(name, args=[arg(*c[:3], c[2] & c[3]) for c in args]) for name, args in rules),
    )
    ours, theirs = compile_filter(wanted, machine="x86_64"), libseccomp.compile_filter(wanted)
    for name in ("read", "ioctl", "socket", "prctl", "clone", "reboot", "getpid", "mkdir"):
        data = seccomp_data(NUMBERS[name], X86_64, tuple(actual))
        assert run(ours, data) == run(theirs, data), name


def test_a_program_is_whole_instructions():
    program = compiled(rule("read"))
    assert len(program) % struct.calcsize("<HBBI") == 0
