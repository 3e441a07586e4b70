"""Keys and certificates for one test, made by openssl as Docker's documentation makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.programs import find, run

if TYPE_CHECKING:
    from pathlib import Path


def make(folder: Path, name: str, *, signer: str | None = None, extensions: str = "") -> None:
    """Make NAME.pem and NAME-key.pem: an authority of its own, or signed by one."""
    openssl, key = find("openssl"), folder / f"{name}-key.pem"
    new = ("req", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-subj", f"/CN={name}")
    if signer is None:
        run(openssl, *new, "-x509", "-days", "2", "-out", str(folder / f"{name}.pem"), check=True)
        return
    request, config = folder / f"{name}.csr", folder / f"{name}.cnf"
    config.write_text(extensions)
    run(openssl, *new, "-out", str(request), check=True)
    run(
        *(openssl, "x509", "-req", "-days", "2", "-in", str(request), "-CAcreateserial"),
        *("-CA", str(folder / f"{signer}.pem"), "-CAkey", str(folder / f"{signer}-key.pem")),
        *("-out", str(folder / f"{name}.pem"), "-extfile", str(config)),
        check=True,
    )
