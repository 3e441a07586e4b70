from __future__ import annotations

import hashlib

import pytest

from berth.errors import InvalidArgument
from berth.oci.digest import Digest

HEX = "a" * 64


def test_a_digest_knows_its_parts_and_hashes_likewise():
    digest = Digest.parse(f"sha256:{HEX}")
    assert (digest.algorithm, digest.encoded) == ("sha256", HEX)
    hasher = digest.hasher()
    hasher.update(b"x")
    assert hasher.hexdigest() == hashlib.sha256(b"x").hexdigest()
    assert Digest.of(b"x") == "sha256:" + hashlib.sha256(b"x").hexdigest()


def test_sha512_is_known():
    assert Digest.parse("sha512:" + "0" * 128).algorithm == "sha512"


@pytest.mark.parametrize(
    "text",
    [
        "",
        HEX,
        f"sha256:{HEX[:-1]}",
        f"sha256:{HEX}0",
        f"sha256:{HEX.upper()}",
        f"md5:{'a' * 32}",
        "sha256:../../../../etc/shadow",
        f"sha256:{'a' * 62}/.",
        f"sha256:{'a' * 63}\n",
    ],
)
def test_what_is_no_digest_is_refused(text):
    with pytest.raises(InvalidArgument, match="invalid digest"):
        Digest.parse(text)
