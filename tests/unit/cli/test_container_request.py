import pytest

from berth.cli.container_flags import RUN
from berth.cli.container_request import build
from berth.cli.options import parse
from berth.errors import InvalidArgument


def request(*arguments):
    options, rest = parse(RUN, [*arguments, "image", "command", "-x"], mixed=False)
    return build(options, rest)


def host(*arguments):
    return request(*arguments)["HostConfig"]


def test_the_image_and_the_command_are_split():
    body = request()
    assert body["Image"] == "image"
    assert body["Cmd"] == ["command", "-x"]
    assert body["AttachStdout"]
    assert not body["AttachStdin"]
    assert "Entrypoint" not in body
    assert body["HostConfig"]["NetworkMode"] == "default"


def test_an_interactive_one_attaches_stdin_and_a_detached_one_nothing():
    body = request("-it")
    assert (body["Tty"], body["OpenStdin"], body["StdinOnce"], body["AttachStdin"]) == (True,) * 4
    body = request("-itd")
    assert body["OpenStdin"]
    assert not any(body[f"Attach{name}"] for name in ("Stdin", "Stdout", "Stderr"))
    assert not body["StdinOnce"]


def test_only_the_asked_streams_are_attached():
    body = request("-a", "stderr")
    assert (body["AttachStdin"], body["AttachStdout"], body["AttachStderr"]) == (False, False, True)


def test_variables_come_from_flags_files_and_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("BERTH_KNOWN", "yes")
    monkeypatch.delenv("BERTH_UNKNOWN", raising=False)
    file = tmp_path / "variables"
    file.write_text("# a comment\n\n  A=1 2\nBERTH_KNOWN\nBERTH_UNKNOWN\n")
    body = request("--env-file", str(file), "-e", "BERTH_KNOWN", "-e", "BERTH_UNKNOWN", "-eB=")
    assert body["Env"] == ["A=1 2", "BERTH_KNOWN=yes", "BERTH_KNOWN=yes", "BERTH_UNKNOWN", "B="]


def test_a_bad_variable_file_is_refused(tmp_path):
    file = tmp_path / "variables"
    file.write_text("A B=1\n")
    with pytest.raises(InvalidArgument, match="variable 'A B' contains whitespaces"):
        request("--env-file", str(file))
    with pytest.raises(InvalidArgument, match="no such file"):
        request("--env-file", str(tmp_path / "none"))


def test_limits_are_numbers():
    found = host("-m64m", "--memory-swap=-1", "--cpus=1.5", "-c", "512", "--pids-limit", "9")
    assert found["Memory"] == 64 << 20
    assert found["MemorySwap"] == -1
    assert found["NanoCpus"] == 1_500_000_000
    assert found["CpuShares"] == 512
    assert found["PidsLimit"] == 9


def test_simple_flags_have_their_fields():
    found = host(
        *("--privileged", "--read-only", "--rm", "--init", "--pid=host", "--ipc=none"),
        *("--cap-add=NET_ADMIN", "--cap-drop", "ALL", "--add-host=a:1.2.3.4", "--dns=9.9.9.9"),
        *("--sysctl", "net.x=1", "--shm-size=1m", "--group-add=staff", "--uts=host"),
    )
    assert all(found[name] for name in ("Privileged", "ReadonlyRootfs", "AutoRemove", "Init"))
    assert (found["PidMode"], found["IpcMode"], found["UTSMode"]) == ("host", "none", "host")
    assert (found["CapAdd"], found["CapDrop"]) == (["CAP_NET_ADMIN"], ["ALL"])
    assert (found["ExtraHosts"], found["Dns"]) == (["a:1.2.3.4"], ["9.9.9.9"])
    assert (found["Sysctls"], found["ShmSize"]) == ({"net.x": "1"}, 1 << 20)


def test_what_was_not_said_is_not_sent():
    assert set(host()) == {"NetworkMode", "PortBindings"}


def test_entrypoint_may_be_emptied():
    assert request("--entrypoint", "/x")["Entrypoint"] == ["/x"]
    assert request("--entrypoint", "")["Entrypoint"] == [""]


@pytest.mark.parametrize(
    ("text", "name", "count"),
    [("always", "always", 0), ("on-failure:3", "on-failure", 3), ("no", "no", 0)],
)
def test_restart_policies(text, name, count):
    assert host("--restart", text)["RestartPolicy"] == {"Name": name, "MaximumRetryCount": count}


def test_a_restarting_container_cannot_be_removed_when_it_exits():
    with pytest.raises(InvalidArgument, match="conflicting options"):
        host("--restart=always", "--rm")


def test_ulimits_have_a_soft_and_a_hard_one():
    assert host("--ulimit=nofile=1:2", "--ulimit", "core=0")["Ulimits"] == [
        {"Name": "core", "Soft": 0, "Hard": 0},
        {"Name": "nofile", "Soft": 1, "Hard": 2},
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "invalid ulimit argument: x"),
        ("foo=3", "invalid ulimit type: foo"),
        ("nofile=a", 'parsing "a": invalid syntax'),
        ("nofile=9:3", "must be less than or equal to hard limit: 9 > 3"),
    ],
)
def test_a_bad_ulimit_is_refused(text, message):
    with pytest.raises(InvalidArgument, match=message):
        host("--ulimit", text)


def test_labels_come_from_flags_and_files(tmp_path):
    file = tmp_path / "labels"
    file.write_text("a=1\nb\n")
    found = request("--label-file", str(file), "-l", "a=2", "--label=c=x=y")["Labels"]
    assert found == {"a": "2", "b": "", "c": "x=y"}


def test_a_seccomp_profile_is_sent_as_its_text(tmp_path):
    profile = tmp_path / "profile.json"
    profile.write_text("{}")
    options = host("--security-opt", f"seccomp={profile}", "--security-opt=seccomp=unconfined")
    assert options["SecurityOpt"] == ["seccomp={}", "seccomp=unconfined"]


def test_networks_have_settings():
    body = request("--network", "n", "--network-alias=a", "--ip", "10.0.0.2")
    assert body["HostConfig"]["NetworkMode"] == "n"
    assert body["NetworkingConfig"]["EndpointsConfig"] == {
        "n": {"Aliases": ["a"], "IPAMConfig": {"IPv4Address": "10.0.0.2"}}
    }
    body = request("--network", "name=n,alias=x,alias=y", "--net", "m")
    assert body["HostConfig"]["NetworkMode"] == "n"
    assert body["NetworkingConfig"]["EndpointsConfig"] == {"n": {"Aliases": ["x", "y"]}, "m": {}}


def test_health_checks():
    check = request("--health-cmd=true", "--health-interval=2s", "--health-retries=3")[
        "Healthcheck"
    ]
    assert check == {"Test": ["CMD-SHELL", "true"], "Interval": 2_000_000_000, "Retries": 3}
    assert request("--no-healthcheck")["Healthcheck"] == {"Test": ["NONE"]}
