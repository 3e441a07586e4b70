"""The cases follow the rules of distribution/reference and the texts that Docker's clients show."""

import pytest

from berth.errors import InvalidArgument
from berth.oci.reference import Reference

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("debian", "docker.io/library/debian", "debian"),
        ("debian:12", "docker.io/library/debian:12", "debian:12"),
        ("library/debian", "docker.io/library/debian", "debian"),
        ("docker.io/debian", "docker.io/library/debian", "debian"),
        ("index.docker.io/library/debian", "docker.io/library/debian", "debian"),
        ("someone/tool", "docker.io/someone/tool", "someone/tool"),
        ("docker.io/a/b/c", "docker.io/a/b/c", "a/b/c"),
        ("library/a/b", "docker.io/library/a/b", "library/a/b"),
        ("localhost/tool", "localhost/tool", "localhost/tool"),
        ("localhost:5000/tool:v1", "localhost:5000/tool:v1", "localhost:5000/tool:v1"),
        ("127.0.0.1:5000/tool", "127.0.0.1:5000/tool", "127.0.0.1:5000/tool"),
        ("[::1]:5000/tool", "[::1]:5000/tool", "[::1]:5000/tool"),
        ("ghcr.io/org/tool:latest", "ghcr.io/org/tool:latest", "ghcr.io/org/tool:latest"),
        ("HOST/tool", "HOST/tool", "HOST/tool"),
        ("local/a__b", "docker.io/local/a__b", "local/a__b"),
        ("a---b", "docker.io/library/a---b", "a---b"),
        ("a.b_c-d", "docker.io/library/a.b_c-d", "a.b_c-d"),
        (f"debian@{DIGEST}", f"docker.io/library/debian@{DIGEST}", f"debian@{DIGEST}"),
        (f"debian:12@{DIGEST}", f"docker.io/library/debian:12@{DIGEST}", f"debian:12@{DIGEST}"),
        ("debian:V_1.2-rc", "docker.io/library/debian:V_1.2-rc", "debian:V_1.2-rc"),
    ],
)
def test_references_are_normalised(text, full, familiar):
    reference = Reference.parse(text)
    assert str(reference) == full
    assert reference.familiar() == familiar
    assert Reference.parse(full) == reference
    assert Reference.parse(familiar) == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/debian",
        "debian/",
        "a//b",
        "a___b",
        "-a",
        "a-",
        "a.",
        "a..b",
        "_a",
        "debian:",
        "debian:-x",
        "debian:a b",
        " debian",
        "debian\n",
        f"debian:{'t' * 129}",
        "debian@sha256",
        "debian@sha256:abc",
        "host:port/x",
        "https://host/x",
        "[fe80::1%eth0]:5000/x",
        "-host.com/x",
        "débian",
        "tool:tag:tag",
    ],
)
def test_malformed_references_are_refused(text):
    with pytest.raises(InvalidArgument, match=r"\Ainvalid reference format\Z"):
        Reference.parse(text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Debian", "library/Debian"),
        ("a/B:tag", "a/B"),
        ("localhost:5000/Foo:1", "Foo"),
    ],
)
def test_upper_case_names_are_told_apart(text, name):
    with pytest.raises(InvalidArgument) as caught:
        Reference.parse(text)
    assert str(caught.value) == (
        f"invalid reference format: repository name ({name}) must be lowercase"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a" * 64,
            f"invalid repository name ({'a' * 64}), cannot specify 64-byte hexadecimal strings",
        ),
        ("x/" + "a" * 254, "repository name must not be more than 255 characters"),
        (f"a@md9:{'a' * 64}", "unsupported digest algorithm"),
        (f"a@sha256:{'a' * 63}", "invalid checksum digest length"),
        (f"a@sha256:{'A' * 64}", "invalid checksum digest format"),
    ],
)
def test_other_mistakes_have_texts_of_their_own(text, message):
    with pytest.raises(InvalidArgument) as caught:
        Reference.parse(text)
    assert str(caught.value) == message


def test_the_longest_name_is_taken():
    assert Reference.parse("x/" + "a" * 253).path == "x/" + "a" * 253


def test_parts_are_named():
    reference = Reference.parse(f"host.io:5/a/b:t@{DIGEST}")
    assert (reference.domain, reference.path) == ("host.io:5", "a/b")
    assert (reference.tag, reference.digest) == ("t", DIGEST)
    assert reference.name == reference.familiar_name == "host.io:5/a/b"


def test_latest_is_only_for_names_alone():
    assert Reference.parse("a").with_default_tag().familiar() == "a:latest"
    assert Reference.parse("a:1").with_default_tag().familiar() == "a:1"
    assert Reference.parse(f"a@{DIGEST}").with_default_tag().familiar() == f"a@{DIGEST}"


def test_tag_and_digest_replace_each_other():
    reference = Reference.parse(f"a:1@{DIGEST}")
    assert reference.with_tag("2").familiar() == "a:2"
    assert reference.with_digest(DIGEST).familiar() == f"a@{DIGEST}"
    with pytest.raises(InvalidArgument, match="invalid tag format"):
        reference.with_tag("a/b")
    with pytest.raises(InvalidArgument, match="unsupported digest algorithm"):
        reference.with_digest("sha1:" + "a" * 40)
