from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec
import pytest

from berth.cli.options import parse
from berth.cli.serve import FLAGS, NAMES, SETTINGS, settings_of
from berth.configuration.settings import RELOADABLE, Settings
from berth.configuration.sources import read
from berth.errors import BerthError, InvalidArgument, NotFound

if TYPE_CHECKING:
    from pathlib import Path

KEYS = {field.encode_name for field in msgspec.structs.fields(Settings)}


def flags(*words: str) -> dict[str, object]:
    options, rest = parse(FLAGS, words)
    assert not rest
    return settings_of(options)


def from_file(tmp_path: Path, text: str, *words: str) -> Settings:
    file = tmp_path / "berth.toml"
    file.write_text(text)
    return read(flags(*words), str(file))


def test_every_setting_has_a_flag():
    assert {NAMES.get(name, name) for name, *_ in SETTINGS} == KEYS
    assert set(RELOADABLE) <= KEYS


def test_a_file_says_what_flags_say(tmp_path):
    text = """
    data-root = "/srv/berth"
    hosts = ["unix:///run/b.sock", "tcp://:2376"]
    tlsverify = true
    mtu = 1400
    log-opts = { max-size = "10m" }
    default-address-pools = [{ base = "10.200.0.0/16", size = 24 }]
    features = { x = true }
    labels = ["a=b"]
    [default-ulimits.nofile]
    Name = "nofile"
    Soft = 64
    Hard = 128
    """
    said = read(
        flags(
            *("--data-root=/srv/berth", "-H", "unix:///run/b.sock", "-H", "tcp://:2376"),
            *("--tlsverify", "--mtu", "1400", "--log-opt", "max-size=10m", "--label", "a=b"),
            *("--default-address-pool", "base=10.200.0.0/16,size=24", "--feature", "x=true"),
            *("--default-ulimit", "nofile=64:128"),
        ),
        str(empty(tmp_path)),
    )
    assert from_file(tmp_path, text) == said


def empty(tmp_path: Path) -> Path:
    file = tmp_path / "empty.toml"
    file.touch()
    return file


def test_dockers_own_file_is_read_too(tmp_path):
    file = tmp_path / "daemon.json"
    file.write_text(json.dumps({"registry-mirrors": ["https://m.example"], "debug": True}))
    found = read({}, str(file))
    assert (found.registry_mirrors, found.debug) == (("https://m.example",), True)


def test_unknown_keys_are_named(tmp_path):
    with pytest.raises(InvalidArgument, match="don't match any configuration option: bogus, nope"):
        from_file(tmp_path, "nope = 1\nbogus = 2\ndebug = true\n")


def test_flag_and_file_may_not_both_say_it(tmp_path):
    with pytest.raises(InvalidArgument) as caught:
        from_file(tmp_path, 'labels = ["a=b"]\nmtu = 1400', "--label", "c=d", "--mtu", "1500")
    assert "specified both as a flag and in the configuration file" in str(caught.value)
    assert "labels: (from flag: [c=d], from file: [a=b])" in str(caught.value)
    assert "mtu: (from flag: 1500, from file: 1400)" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mtu = 'x'", "mtu: Expected `int`, got `str`"),
        ("hosts = [1]", r"hosts\[0\]: Expected `str`, got `int`"),
        ("log-opts = { max-size = 3 }", "log-opts.*Expected `str`"),
        ("default-address-pools = [{ base = '10.0.0.0/8' }]", "default-address-pools"),
        ("default-address-pools = [{ base = '10.0.0.0/8', size = 4 }]", "out of its range"),
        ("default-address-pools = [{ base = '10.0.0.1/8', size = 24 }]", "invalid base pool"),
        ("bip = 'x'", "invalid CIDR address: x"),
        ("bip = '10.0.0.0/24'", "an address with a prefix"),
        ("bip6 = '10.0.0.1/24'", "invalid CIDR address of IPv6"),
        (
            "bip = '10.0.0.1/24'\nfixed-cidr = '10.1.0.0/24'",
            "not part of the subnet of 10.0.0.1/24",
        ),
        (
            "bip = '10.0.0.1/24'\nfixed-cidr = '10.0.0.0/16'",
            "not part of the subnet of 10.0.0.1/24",
        ),
        ("host-gateway-ips = ['10.0.0.1', '10.0.0.2']", "only one IPv4 host gateway IP address"),
        ("host-gateway-ip = 'here'", "invalid IP address: here"),
        ("host-gateway-ip = 'a'\nhost-gateway-ips = []", "use one of the two"),
        ("fixed-cidr-v6 = 'fd00::/127'", "too small for a gateway and a container"),
        ("ip = 'eth0'", "invalid IP address: eth0"),
        ("default-gateway = 'eth0'", "invalid IP address: eth0"),
        ("default-gateway = 'fd00::1'", "an address of IPv4 is needed"),
        ("default-gateway-v6 = '10.0.0.1'", "an address of IPv6 is needed"),
        ("bridge = 'none'", "there is always a default network"),
        ("bridge = 'br0'\nbip6 = 'fd00::1/64'", "exclude each other"),
        ("iptables = false", "always on"),
        ("ip6tables = false", "always on"),
        ("dns = ['x']", "x is not an ip address"),
        ("labels = ['x']", "bad attribute format: x"),
        ("labels = ['x=1', 'x=2']", "conflict labels"),
        ("mtu = 3", "invalid default MTU: 3"),
        ("log-level = 'loud'", "invalid logging level: loud"),
        ("live-restore = false", "live-restore is always on"),
        ("default-ipc-mode = 'host'", 'IPC mode "host" is not supported as default'),
        ("default-shm-size = 'big'", "invalid size: 'big'"),
        ("storage-opts = ['overlay2.size=big']", "invalid size: 'big'"),
        ("storage-opts = ['overlay2.speed=1']", "overlay2: unknown option overlay2.speed"),
        ("storage-opts = ['size']", "unable to parse storage-opt key/value: size"),
        ("hosts = ['http://x']", "use unix:///PATH"),
        ("hosts = ['tcp://127.0.0.1:1']", "without TLS whoever can connect to it is root"),
        ("mtu = ", "berth.toml: Invalid value"),
        ("[[[", "berth.toml"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, text, message):
    with pytest.raises(InvalidArgument, match=message):
        from_file(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "words", "found"),
    [
        ("host-gateway-ip = '10.0.0.1'", (), ("10.0.0.1",)),
        ("host-gateway-ips = ['10.0.0.1', '::1']", (), ("10.0.0.1", "::1")),
        ("", ("--host-gateway-ip=10.0.0.1", "--host-gateway-ip=::1"), ("10.0.0.1", "::1")),
    ],
)
def test_the_hosts_gateway_has_an_older_name(tmp_path, text, words, found):
    assert from_file(tmp_path, text, *words).host_gateway_ips == found


@pytest.mark.parametrize("word", ["--tls=false", "--tlsverify=false", "--tls", "--tlsverify"])
def test_tcp_is_allowed_when_it_is_said_how(word):
    assert read(flags("-H", "tcp://0.0.0.0:2375", word), None).hosts == ("tcp://0.0.0.0:2375",)


def test_a_file_that_was_named_must_be_there(tmp_path):
    with pytest.raises(NotFound, match="no such file or directory"):
        read({}, str(tmp_path / "missing"))


@pytest.mark.parametrize(
    "words",
    [
        ("--default-address-pool", "10.0.0.0/8"),
        ("--default-ulimit", "nofile=x"),
        ("--feature", "x=perhaps"),
    ],
)
def test_flags_of_another_form_are_refused(words):
    with pytest.raises(BerthError, match="invalid argument"):
        flags(*words)
