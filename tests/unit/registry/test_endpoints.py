import pytest

from berth.errors import InvalidArgument
from berth.registry.endpoints import Endpoints


def urls(domain, *, mirrors=(), insecure=()):
    return [e.url for e in Endpoints(mirrors, insecure).of(domain)]


def test_registries_are_asked_by_https_only():
    assert urls("203.0.113.1:5000") == ["https://203.0.113.1:5000"]
    assert urls("docker.io") == ["https://registry-1.docker.io"]


@pytest.mark.parametrize("domain", ["127.0.0.1:5000", "127.9.9.9", "localhost:5000", "[::1]:5000"])
def test_this_machine_may_speak_plain_http(domain):
    assert urls(domain) == [f"https://{domain}", f"http://{domain}"]


@pytest.mark.parametrize("rule", ["203.0.113.0/24", "203.0.113.1:5000", "203.0.113.1"])
def test_rules_make_registries_insecure(rule):
    endpoints = Endpoints((), (rule,))
    assert endpoints.is_insecure("203.0.113.1:5000")
    assert not endpoints.is_insecure("203.0.112.1:5000")
    assert [e.tls.verify for e in endpoints.of("203.0.113.1:5000")] == [False, False]


def test_a_rule_with_a_port_is_for_that_port():
    assert not Endpoints((), ("203.0.113.1:5000",)).is_insecure("203.0.113.1")


def test_mirrors_are_for_docker_hub_and_come_first():
    mirrors = ("https://mirror.invalid/", "http://127.0.0.1:1")
    found = Endpoints(mirrors, ()).of("docker.io")
    assert [(e.url, e.mirror, e.tls.verify) for e in found] == [
        ("https://mirror.invalid", True, True),
        ("http://127.0.0.1:1", True, False),
        ("https://registry-1.docker.io", False, True),
    ]
    assert urls("203.0.113.1", mirrors=mirrors) == ["https://203.0.113.1"]


@pytest.mark.parametrize(
    "mirror", ["mirror.invalid", "ftp://mirror.invalid", "http://", "http://m/p"]
)
def test_other_mirrors_are_refused(mirror):
    with pytest.raises(InvalidArgument, match="invalid mirror"):
        Endpoints((mirror,), ())
