import pytest

from berth.client import address
from berth.errors import InvalidArgument


def test_a_unix_address_has_a_path():
    assert address.parse("unix:///run/x.sock").path == "/run/x.sock"


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("tcp://127.0.0.1:1234", "127.0.0.1", 1234),
        ("tcp://box", "box", 2375),
        ("tcp://[::1]:80/", "::1", 80),
        ("tcp://:99", "127.0.0.1", 99),
    ],
)
def test_a_tcp_address_has_a_host_and_a_port(url, host, port):
    found = address.parse(url)
    assert (found.host, found.port, found.path) == (host, port, "")


@pytest.mark.parametrize(
    "url", ["", "/run/x", "unix://x", "http://x", "tcp://x:y", "tcp://x:99999"]
)
def test_anything_else_is_refused(url):
    with pytest.raises(InvalidArgument, match="invalid host"):
        address.parse(url)


def test_the_flag_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv("BERTH_HOST", "unix:///from/environment")
    chosen = address.chosen("unix:///from/flag")
    assert chosen is not None
    assert chosen.path == "/from/flag"
    chosen = address.chosen("")
    assert chosen is not None
    assert chosen.path == "/from/environment"
    monkeypatch.delenv("BERTH_HOST")
    assert address.chosen("") is None
