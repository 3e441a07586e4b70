import json
import time

import pytest

from berth.cli.listing import filters, ports
from berth.cli.main import main
from support.scripted import ScriptedEngine, answers, reply


@pytest.fixture
def ask(tmp_path, capsys):
    """Run a command against an engine that answers with these documents."""

    def run(arguments, *documents):
        replies = [reply(json.dumps(document).encode()) for document in documents]
        with ScriptedEngine(tmp_path / "s", answers(*replies)) as engine:
            status = main(["berth", "-H", engine.url, *arguments])
        return status, capsys.readouterr().out, engine.sent

    return run


def container(**values):
    return {
        "Id": "0123456789abcdef" * 4,
        "Image": "busybox",
        "Command": "sh -c 'a long command'",
        "Created": int(time.time()) - 7300,
        "Status": "Up 2 hours",
        "State": "running",
        "Names": ["/web"],
        "Ports": [{"PrivatePort": 80, "Type": "tcp", "IP": "0.0.0.0", "PublicPort": 8080}],
        **values,
    }


def test_ps_is_a_table(ask):
    status, out, sent = ask(["ps", "-a", "-f", "name=web"], [container()])
    assert status == 0
    title, row = out.splitlines()
    assert title.split("   ")[0] == "CONTAINER ID"
    assert row.split("   ")[0] == "0123456789ab"
    assert '"sh -c \'a long comma…"' in row
    assert "2 hours ago   Up 2 hours   0.0.0.0:8080->80/tcp   web" in row
    assert b"/containers/json?all=1&filters=%7B%22name%22:%5B%22web%22%5D%7D " in sent[0]


def test_ps_prints_ids_and_templates(ask):
    assert ask(["ps", "-q"], [container()])[1] == "0123456789ab\n"
    assert ask(["ps", "-q", "--no-trunc"], [container()])[1] == "0123456789abcdef" * 4 + "\n"
    assert ask(["ps", "--format", "{{.Names}} {{.State}}"], [container()])[1] == "web running\n"
    assert ask(["ps", "-q"], [])[1] == ""


def test_ports_are_sorted_and_told_once():
    found = [
        {"PrivatePort": 90, "Type": "udp"},
        {"PrivatePort": 80, "Type": "tcp", "IP": "::", "PublicPort": 1},
        {"PrivatePort": 90, "Type": "udp"},
    ]
    assert ports(found) == "90/udp, [::]:1->80/tcp"


def test_neighbouring_ports_are_one_range():
    found = [
        {"PrivatePort": port, "Type": "tcp", "IP": "0.0.0.0", "PublicPort": port}
        for port in (7001, 7000, 7003)
    ]
    assert ports(found) == "0.0.0.0:7000-7001->7000-7001/tcp, 0.0.0.0:7003->7003/tcp"


def test_filters_need_a_value(capsys):
    assert filters(["a=1", "A=2", "b=c=d"]) == '{"a":["1","2"],"b":["c=d"]}'
    assert filters([]) == ""
    assert main(["berth", "ps", "--filter", "a"]) == 125
    assert 'invalid argument "a" for "-f, --filter" flag: bad format' in capsys.readouterr().err


def test_top_is_a_table(ask):
    answer = {"Titles": ["PID", "CMD"], "Processes": [["1", "sleep 5"], ["22", "x"]]}
    assert ask(["top", "web", "-o", "pid"], answer)[1].splitlines() == [
        f"{'PID'.ljust(20)}CMD",
        f"{'1'.ljust(20)}sleep 5",
        f"{'22'.ljust(20)}x",
    ]


def test_port_tells_all_or_one(ask):
    ports = {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "90/tcp": None}
    inspected = {"NetworkSettings": {"Ports": ports}}
    assert ask(["port", "web"], inspected)[1] == "80/tcp -> 0.0.0.0:8080\n"
    assert ask(["port", "web", "80"], inspected)[1] == "0.0.0.0:8080\n"
    assert ask(["port", "web", "90"], inspected)[0] == 1


def test_images_have_a_row_for_every_name(ask):
    image = {
        "Id": "sha256:" + "ab" * 32,
        "Created": int(time.time()) - 90,
        "Size": 1_980_000,
        "RepoTags": ["busybox:latest", "host:5000/b:1"],
        "RepoDigests": ["busybox@sha256:dd"],
    }
    out = ask(["images", "--digests"], [image, {**image, "RepoTags": [], "RepoDigests": []}])[1]
    rows = [line.split() for line in out.splitlines()]
    assert rows[1][:4] == ["busybox", "latest", "sha256:dd", "abababababab"]
    assert rows[2][:4] == ["host:5000/b", "1", "<none>", "abababababab"]
    assert rows[3][:3] == ["<none>"] * 3
    assert out.count("About a minute ago   1.98MB") == 3
    assert ask(["images", "-q"], [image])[1] == "abababababab\n" * 2


def test_rmi_says_what_was_untagged_and_deleted(ask):
    answer = [{"Untagged": "a:1"}, {"Deleted": "sha256:x"}]
    assert ask(["rmi", "a:1"], answer)[1] == "Untagged: a:1\nDeleted: sha256:x\n"


def test_inspect_prints_a_list_or_a_template(ask):
    document = {"State": {"Status": "running"}}
    assert json.loads(ask(["inspect", "web"], document)[1]) == [document]
    assert ask(["inspect", "-f", "{{.State.Status}}", "web"], document)[1] == "running\n"
    assert ask(["inspect", "-f", "{{json .State}}", "web"], document)[1] == '{"Status":"running"}\n'


def test_logs_demultiplex_and_ask_for_what_was_asked(tmp_path, capfd):
    data = b"\x01\0\0\0\0\0\0\x04out\n\x02\0\0\0\0\0\0\x04err\n"
    replies = reply(b'{"Config": {"Tty": false}}'), reply(data)
    with ScriptedEngine(tmp_path / "t", answers(*replies)) as engine:
        assert main(["berth", "-H", engine.url, "logs", "-t", "--tail=2", "--since", "5", "x"]) == 0
    assert capfd.readouterr() == ("out\n", "err\n")
    assert b"/containers/x/logs?stdout=1&stderr=1&tail=2&timestamps=1&since=5 " in engine.sent[1]


def test_verbs_go_on_after_an_error_and_return_1(tmp_path, capsys):
    gone = reply(b'{"message": "No such container: a"}', status="404 Not Found")
    done = reply(status="204 No Content")
    with ScriptedEngine(tmp_path / "t", answers(gone, done)) as engine:
        assert main(["berth", "-H", engine.url, "stop", "-t", "3", "a", "b"]) == 1
    assert capsys.readouterr() == ("b\n", "berth: No such container: a\n")
    assert engine.sent[1].startswith(b"POST /v1.48/containers/b/stop?t=3 ")


def test_networks_and_volumes_are_made_as_told(ask):
    created = ask(
        ["network", "create", "--subnet", "10.1.0.0/16", "--gateway=10.1.0.1", "-o", "a=b", "n"],
        {"Id": "netid"},
    )
    assert created[1] == "netid\n"
    assert b'"Config":[{"Subnet":"10.1.0.0/16","Gateway":"10.1.0.1"}]' in created[2][0]
    created = ask(["volume", "create", "--label", "x=y", "v"], {"Name": "v"})
    assert created[1] == "v\n"
    assert b'"Labels":{"x":"y"}' in created[2][0]
    assert ask(["volume", "ls", "-q"], {"Volumes": [{"Name": "b"}, {"Name": "a"}]})[1] == "a\nb\n"
