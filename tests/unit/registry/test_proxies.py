import pytest

from berth.registry.proxies import proxy_for

PROXY = "http://proxy.invalid:3128"


def test_each_scheme_has_its_proxy():
    environment = {"http_proxy": "plain.invalid:1", "HTTPS_PROXY": PROXY, "https_proxy": "ignored"}
    assert proxy_for("https://host.invalid/v2/", environment) == PROXY
    assert proxy_for("http://host.invalid/v2/", environment) == "http://plain.invalid:1"
    assert proxy_for("https://host.invalid/v2/", {}) is None


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:5000", "127.1.2.3", "[::1]:5000"])
def test_this_machine_is_never_asked_through_a_proxy(host):
    assert proxy_for(f"https://{host}/", {"HTTPS_PROXY": PROXY}) is None


@pytest.mark.parametrize(
    ("rule", "host", "direct"),
    [
        ("*", "a.invalid", True),
        ("a.invalid", "a.invalid", True),
        ("a.invalid", "sub.a.invalid", True),
        ("a.invalid", "ba.invalid", False),
        (".a.invalid", "sub.a.invalid", True),
        (".a.invalid", "a.invalid", False),
        ("*.a.invalid", "sub.a.invalid", True),
        ("b.invalid, A.invalid", "a.invalid", True),
        ("a.invalid:443", "a.invalid", True),
        ("a.invalid:444", "a.invalid", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.0.0.0/8", "a.invalid", False),
        ("10.1.2.3", "10.1.2.3:8443", True),
        ("fd00::/8", "[fd00::1]", True),
        ("nonsense/99", "10.1.2.3", False),
        ("", "a.invalid", False),
        (",", "a.invalid", False),
    ],
)
def test_exceptions_are_go_s(rule, host, direct):
    environment = {"HTTPS_PROXY": PROXY, "NO_PROXY": rule}
    assert (proxy_for(f"https://{host}/", environment) is None) == direct
