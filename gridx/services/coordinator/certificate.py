"""The coordinator's certificate: one's own, or one that is made at the first start and kept.

What is made vouches for itself. Clients and workers keep it at their first connection and notice another, so
it has no end: a new one would look to all of them like somebody in between.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from gridx import privatefiles
from gridx.config import Settings
from gridx.errors import SetupError
from gridx.known_coordinators import fingerprint

FILE: Final = "tls.pem"
NO_END: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""What RFC 5280 has for a certificate without an end."""


def load(settings: Settings) -> tuple[ssl.SSLContext, str] | None:
    """What the listeners speak TLS with, and the certificate's fingerprint; None where ``tls`` is ``off``.

    Raises:
        SetupError: a file cannot be read or written, or holds no certificate with its key.
    """
    own = settings.coordinator
    if own.tls == "off":
        return None
    if own.tls == "auto":
        certificate = key = settings.db_path.parent / FILE
        privatefiles.make_folder(certificate.parent)
        if not certificate.exists():
            _make(certificate, own.host)
    else:
        certificate, key = settings.tls_files
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        # The answer to a key with a passphrase: nobody is asked, so that a start never waits for a person.
        context.load_cert_chain(certificate, key, password=lambda: "")
        first = ssl.PEM_cert_to_DER_cert(_first_block(certificate.read_text(encoding="ascii")))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else None
        raise SetupError(
            f"{certificate} and {key} are no certificate with its key that can be used"
            f"{f' ({why})' if why else ''}.",
            "Both are files in PEM form, the key without a passphrase; --tls auto makes one of its own.",
        ) from None
    return context, fingerprint(first)


def _first_block(text: str) -> str:
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    start = text.index(begin)
    return text[start : text.index(end, start) + len(end)] + "\n"


def _make(path: Path, host: str) -> None:
    """Write a new key and its certificate into one file, for the owner alone; half of one is never there."""
    from cryptography import x509  # here: not loaded where nobody wants TLS
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Grid-X coordinator")])
    names, addresses = _names(host)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # A day of leeway for clocks that are behind.
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(NO_END)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(
                [*map(x509.DNSName, names), *(x509.IPAddress(address) for address in addresses)]
            ),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + made.public_bytes(serialization.Encoding.PEM)
    try:
        privatefiles.write(path, text, new=True)
    except FileExistsError:
        return  # another process was quicker
    except OSError as error:
        raise SetupError(
            f"The certificate {path} cannot be written: {error.strerror}.", "Name another folder: --data-dir."
        ) from None


def _names(host: str) -> tuple[list[str], list[ipaddress.IPv4Address | ipaddress.IPv6Address]]:
    """The names and addresses under which this machine is known now, for programs that compare them."""
    import psutil

    texts = {"127.0.0.1", "::1", host}
    for found in psutil.net_if_addrs().values():
        texts |= {each.address for each in found if each.family in (socket.AF_INET, socket.AF_INET6)}
    addresses = set()
    names = {"localhost", socket.gethostname().lower()}
    for text in texts:
        try:
            addresses.add(ipaddress.ip_address(text.partition("%")[0]))
        except ValueError:
            names.add(text.lower())
    fit = [name for name in names if name and len(name) < 254 and name.isascii() and name.isprintable()]
    return sorted(fit), sorted(addresses, key=str)
