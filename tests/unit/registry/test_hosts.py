"""containerd's hosts.toml is read as containerd reads it."""

import pytest

from berth.errors import InvalidArgument
from berth.registry.hosts import configured
from berth.registry.places import Tls

ALL = {"pull", "resolve"}


@pytest.fixture
def write(tmp_path):
    def write(text, domain="registry.invalid"):
        (tmp_path / domain).mkdir(exist_ok=True)
        (tmp_path / domain / "hosts.toml").write_text(text)
        return (tmp_path,)

    return write


def test_nothing_said_means_nothing(tmp_path):
    assert configured("registry.invalid", (tmp_path,), ALL) is None


def test_hosts_come_in_order_and_the_server_last(write):
    folders = write('server = "https://up.invalid"\n[host."https://b"]\n[host."http://a:1"]\n')
    found = configured("registry.invalid", folders, ALL)
    assert [(e.api, e.mirror) for e in found] == [
        ("https://b/v2", True),
        ("http://a:1/v2", True),
        ("https://up.invalid/v2", True),
    ]


@pytest.mark.parametrize(
    ("domain", "server", "mirror"),
    [
        ("registry.invalid", "http://registry.invalid", False),
        ("registry.invalid", "https://registry.invalid:5000", True),
        ("registry.invalid", "https://registry-1.docker.io", True),
        ("docker.io", "https://registry-1.docker.io", False),
        ("docker.io", "https://cache", True),
    ],
)
@pytest.mark.parametrize("folder", ["own", "_default"])
def test_a_server_of_another_name_is_a_mirror(write, domain, server, mirror, folder):
    folders = write(f'server = "{server}"\n', domain if folder == "own" else folder)
    assert [e.mirror for e in configured(domain, folders, ALL)] == [mirror]


def test_without_a_server_docker_hub_is_where_it_is(write):
    mirror, hub = configured("docker.io", write('[host."https://m"]\n', "_default"), ALL)
    assert (mirror.mirror, hub.mirror, hub.api) == (True, False, "https://registry-1.docker.io/v2")


def test_without_a_server_the_registry_itself_is_last(write):
    found = configured("registry.invalid", write('[host."mirror.invalid"]\n'), ALL)
    assert [e.api for e in found] == ["https://mirror.invalid/v2", "https://registry.invalid/v2"]


@pytest.mark.parametrize(
    ("url", "override", "api"),
    [
        ("https://m", "false", "https://m/v2"),
        ("https://m/", "false", "https://m/v2"),
        ("https://m/v2", "false", "https://m/v2"),
        ("https://m/cache", "false", "https://m/cache/v2"),
        ("https://m/v2/cache/", "true", "https://m/v2/cache"),
        ("https://m", "true", "https://m"),
    ],
)
def test_paths(write, url, override, api):
    folders = write(f'[host."{url}"]\noverride_path = {override}\n')
    assert configured("registry.invalid", folders, ALL)[0].api == api


def test_capabilities_choose_hosts_but_never_the_server(write):
    folders = write('capabilities = ["pull"]\n[host."https://m"]\ncapabilities = ["pull"]\n')
    assert len(configured("registry.invalid", folders, {"pull"})) == 2
    assert len(configured("registry.invalid", folders, ALL)) == 1
    assert len(configured("registry.invalid", folders, {"push"})) == 1


def test_certificates_and_headers_belong_to_their_host(write, tmp_path):
    folders = write(
        '[host."https://m"]\nca = ["/a.crt", "b.crt"]\nclient = ["both.pem", ["c.cert", "c.key"]]\n'
        'skip_verify = true\n[host."https://m".header]\nx-one = "1"\nx-two = ["a", "b"]\n'
    )
    mirror, server = configured("registry.invalid", folders, ALL)
    here = tmp_path / "registry.invalid"
    assert mirror.tls.verify is False
    assert list(map(str, mirror.tls.authorities)) == ["/a.crt", f"{here}/b.crt"]
    assert mirror.tls.identities == ((here / "both.pem",), (here / "c.cert", here / "c.key"))
    assert mirror.headers == (("x-one", "1"), ("x-two", "a, b"))
    assert (server.tls, server.headers) == (Tls(), ())
    assert mirror.tls_of("https://other/x") == Tls(verify=False)
    assert mirror.tls_of("https://m:443/x") == mirror.tls


def test_the_default_is_for_those_without_a_folder(write):
    folders = write('[host."https://m"]\n', "_default")
    found = configured("registry.invalid:5000", folders, ALL)
    assert [e.api for e in found] == ["https://m/v2", "https://registry.invalid:5000/v2"]


@pytest.mark.parametrize(
    "text",
    ["[host", "server = 7\n", '[host."ftp://m"]\n', '[host."https://m/?q"]\n', 'host = "x"\n'],
)
def test_what_is_wrong_is_refused_with_the_file_s_name(write, text):
    with pytest.raises(InvalidArgument, match=r"read .*registry.invalid/hosts.toml: "):
        configured("registry.invalid", write(text), ALL)
