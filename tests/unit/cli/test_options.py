import pytest

from berth.cli.container_flags import RUN
from berth.cli.options import HelpWanted, UsageError, parse


def run(*arguments):
    return parse(RUN, arguments, mixed=False)


def test_flags_end_at_the_first_positional():
    options, rest = run("--rm", "-it", "image", "-x", "--rm=false", "--", "y")
    assert options.on("rm")
    assert options.on("interactive")
    assert options.on("tty")
    assert rest == ["image", "-x", "--rm=false", "--", "y"]


def test_flags_mix_with_positionals_where_allowed():
    options, rest = parse(RUN, ["a", "--rm", "b", "--", "--rm=false"])
    assert options.on("rm")
    assert rest == ["a", "b", "--rm=false"]


@pytest.mark.parametrize(
    ("arguments", "on"),
    [
        (["--rm"], True),
        (["--rm=true"], True),
        (["--rm=1"], True),
        (["--rm=false"], False),
        (["--rm=F"], False),
        (["--rm", "--rm=0"], False),
    ],
)
def test_switches_take_a_value_only_after_an_equals_sign(arguments, on):
    options, rest = run(*arguments, "false")
    assert options.on("rm") is on
    assert rest == ["false"]


def test_a_switch_may_be_on_by_default():
    assert run("i")[0].on("sig-proxy", default=True)
    assert not run("--sig-proxy=false", "i")[0].on("sig-proxy", default=True)


@pytest.mark.parametrize(
    "arguments",
    [
        ["-p80:80"],
        ["-p", "80:80"],
        ["-p=80:80"],
        ["--publish", "80:80"],
        ["--publish=80:80"],
        ["-itp80:80"],
        ["-dp", "80:80"],
        ["-it=true", "-p80:80"],
    ],
)
def test_values_have_many_spellings(arguments):
    options, rest = run(*arguments, "image")
    assert options.all("publish") == ["80:80"]
    assert rest == ["image"]


def test_repeated_flags_add_up_and_others_are_replaced():
    options, _ = run("-e", "A", "-eB=1", "--env=C=", "-w/a", "--workdir", "/b", "i")
    assert options.all("env") == ["A", "B=1", "C="]
    assert options.text("workdir") == "/b"


def test_a_value_may_look_like_a_flag_and_a_dash_is_a_positional():
    options, rest = run("--name", "--rm", "-", "x")
    assert options.text("name") == "--rm"
    assert rest == ["-", "x"]


def test_help_is_wanted():
    with pytest.raises(HelpWanted):
        run("--help")
    with pytest.raises(HelpWanted):
        parse((), ["-h"])
    assert run("-h", "box", "i")[0].text("hostname") == "box"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--x"], "unknown flag: --x"),
        (["--x=1"], "unknown flag: --x"),
        (["-z"], "unknown shorthand flag: 'z' in -z"),
        (["-itz"], "unknown shorthand flag: 'z' in -itz"),
        (["--name"], "flag needs an argument: --name"),
        (["-e"], "flag needs an argument: 'e' in -e"),
        (["-ite"], "flag needs an argument: 'e' in -ite"),
        (
            ["--rm=foo"],
            'invalid argument "foo" for "--rm" flag: strconv.ParseBool: parsing "foo": invalid syntax',
        ),
        (["-m", "5x"], 'invalid argument "5x" for "-m, --memory" flag: invalid suffix: \'x\''),
        (
            ["--pids-limit", "x"],
            'invalid argument "x" for "--pids-limit" flag: strconv.ParseInt: parsing "x": invalid syntax',
        ),
        (
            ["--cpus", "x"],
            'invalid argument "x" for "--cpus" flag: failed to parse x as a rational number',
        ),
    ],
)
def test_mistakes_are_told_in_dockers_words(arguments, message):
    with pytest.raises(UsageError) as caught:
        run(*arguments)
    assert str(caught.value) == message


def test_numbers_are_converted():
    options, _ = run("-m", "1.5g", "--cpus", ".5", "--health-interval", "1m30s", "i")
    assert options.number("memory") == 1_610_612_736
    assert options.number("cpus") == 500_000_000
    assert options.number("health-interval") == 90_000_000_000
    assert options.number("pids-limit", -7) == -7


def test_commas_separate_values_where_docker_says_strings():
    flags = (("alias", "", "strings", ""), ("label", "", "list", ""))
    words = ["--alias", "a,b", "--alias=c", "--alias", 'd,"e,f"', "--alias=", "--label", "x,y"]
    options, _ = parse(flags, words)
    assert options.all("alias") == ["a", "b", "c", "d", "e,f"]
    assert options.all("label") == ["x,y"]
