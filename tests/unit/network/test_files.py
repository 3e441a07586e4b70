from berth.network import files


def test_hosts_names_the_container_last():
    text = files.hosts(hostname="c1", addresses=["172.17.0.2"], extra=[("10.0.0.1", "db")])
    assert text == (
        "127.0.0.1\tlocalhost\n"
        "::1\tlocalhost ip6-localhost ip6-loopback\n"
        "fe00::\tip6-localnet\n"
        "ff00::\tip6-mcastprefix\n"
        "ff02::1\tip6-allnodes\n"
        "ff02::2\tip6-allrouters\n"
        "10.0.0.1\tdb\n"
        "172.17.0.2\tc1\n"
    )


def test_a_domain_makes_a_full_name():
    text = files.hosts(hostname="c1", domainname="example.org", addresses=["172.17.0.2"])
    assert text.endswith("\n172.17.0.2\tc1.example.org c1\n")
    assert files.own_names("c1", "") == "c1"
    for name, domain in (("c1.example.org", ""), ("c1.example", "org")):
        assert files.own_names(name, domain) == "c1.example.org c1"


def test_extra_hosts_are_split_and_know_the_gateway():
    entries = ["db:10.0.0.1", "me:host-gateway", "six:::1", "six:[2001:db8::1]"]
    assert files.extra_hosts(entries, host_gateways=["172.17.0.1"]) == [
        ("10.0.0.1", "db"),
        ("172.17.0.1", "me"),
        ("::1", "six"),
        ("2001:db8::1", "six"),
    ]


def test_loopback_resolvers_are_left_out():
    host = (
        "# made by hand\nnameserver 127.0.0.53\nnameserver 192.0.2.1\nsearch a b\noptions edns0\n"
    )
    assert files.resolv_conf(host) == "nameserver 192.0.2.1\nsearch a b\noptions edns0\n"
    assert "127.0.0.53" in files.resolv_conf(host, own_namespace=False)


def test_without_any_resolver_public_ones_are_used():
    for host in ("", "nameserver ::1\n", "nameserver 127.0.0.1\nnameserver nonsense\n"):
        assert files.resolv_conf(host) == "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"


def test_what_is_given_replaces_what_the_host_has():
    host = "nameserver 192.0.2.1\nsearch a\noptions edns0\n"
    text = files.resolv_conf(host, servers=["127.0.0.1"], search=["."], options=["ndots:2"])
    assert text == "nameserver 127.0.0.1\noptions ndots:2\n"


def test_a_hostname_is_a_line():
    assert files.hostname("c1") == "c1\n"
