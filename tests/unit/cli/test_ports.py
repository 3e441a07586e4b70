import pytest

from berth.cli.ports import endpoint, exposed, published
from berth.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "port", "ip", "host"),
    [
        ("80", "80/tcp", "", ""),
        ("8080:80", "80/tcp", "", "8080"),
        ("8080:80/udp", "80/udp", "", "8080"),
        ("127.0.0.1:8080:80", "80/tcp", "127.0.0.1", "8080"),
        ("127.0.0.1::80", "80/tcp", "127.0.0.1", ""),
        ("[::1]:8080:80", "80/tcp", "::1", "8080"),
        ("8000-8010:80", "80/tcp", "", "8000-8010"),
    ],
)
def test_a_published_port_has_a_binding(text, port, ip, host):
    assert published([text]) == {port: [{"HostIp": ip, "HostPort": host}]}


def test_ranges_are_bound_one_by_one():
    found = published(["8000-8001:80-81", "9000:80"])
    assert found == {
        "80/tcp": [{"HostIp": "", "HostPort": "8000"}, {"HostIp": "", "HostPort": "9000"}],
        "81/tcp": [{"HostIp": "", "HostPort": "8001"}],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("99999:1", "invalid hostPort: 99999"),
        ("1:x", "invalid containerPort: x"),
        ("1-2:3-5", "invalid ranges"),
        ("1:", "no port specified"),
        ("1:2/foo", "invalid proto: foo"),
    ],
)
def test_bad_ports_are_refused(text, message):
    with pytest.raises(InvalidArgument, match=message):
        published([text])


def test_exposed_ports_are_a_set():
    assert exposed(["80", "90-91/udp"]) == {"80/tcp": {}, "90/udp": {}, "91/udp": {}}
    with pytest.raises(InvalidArgument, match="invalid port format"):
        exposed(["80:80"])


def test_a_network_may_have_settings():
    assert endpoint("n") == ("n", {})
    assert endpoint("name=n,ip=1.2.3.4,mac-address=aa,driver-opt=a=b") == (
        "n",
        {"MacAddress": "aa", "IPAMConfig": {"IPv4Address": "1.2.3.4"}, "DriverOpts": {"a": "b"}},
    )
    with pytest.raises(InvalidArgument, match="invalid field key nope"):
        endpoint("name=n,nope=1")
