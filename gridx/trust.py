"""TLS to a coordinator: whose certificate is taken, and no secret before that is settled.

A certificate that a CA of the system vouches for is taken by its name, as a browser does. Any other is taken
once, shown and kept (:mod:`gridx.known_coordinators`), and has to be the same from then on. The check is part
of making each connection: the first byte of a request is written after it. A coordinator that is known to
speak TLS is never spoken to without.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NoReturn

import aiohttp

from gridx import safetext
from gridx.address import http_url
from gridx.errors import Unreachable, Untrusted
from gridx.known_coordinators import KnownCoordinators, digest, fingerprint, place, written

log = logging.getLogger("gridx.trust")

HANDSHAKE_S: Final = 10.0
TLS_SCHEMES: Final = ("https://", "wss://")

Check = bool | ssl.SSLContext | aiohttp.Fingerprint
"""What aiohttp takes as ``ssl``: how the other side's certificate is checked."""


@dataclass
class Trust:
    """Settles for one client or worker how each of its addresses is checked; each is settled once.

    Attributes:
        known: where certificates are kept.
        certificate: the fingerprint of the coordinator in the same process, which nobody has to be asked for.
        met: the fingerprint that was kept last.
    """

    known: KnownCoordinators = field(default_factory=KnownCoordinators)
    certificate: str = ""
    met: str = ""
    _settled: dict[str, Check] = field(default_factory=dict)

    async def check(self, url: str, *, like: str = "") -> Check:
        """How to check the certificate at ``url``, to be given to aiohttp with every request there.

        Args:
            like: another address of the same coordinator, whose kept certificate this one must have, too.

        Raises:
            Untrusted: without TLS, where the coordinator is known to speak it.
            Unreachable: nothing answers there, or what answers does not speak TLS.
            SetupError: what is known cannot be read or written.
        """
        where = place(url)
        if url not in self._settled:
            if self.certificate and url.startswith(TLS_SCHEMES):
                self._settled[url] = aiohttp.Fingerprint(digest(self.certificate))
            else:
                kept = await asyncio.to_thread(self._kept, where, like)
                self._settled[url] = (
                    self._plain(url, where, kept)
                    if not url.startswith(TLS_SCHEMES)
                    else aiohttp.Fingerprint(digest(kept))
                    if kept
                    else await self._meet(url, where)
                )
        return self._settled[url]

    async def changed(
        self, url: str, error: aiohttp.ServerFingerprintMismatch, *, like: str = ""
    ) -> Untrusted:
        """As :func:`changed`, with the name of the address under which the certificate is known."""
        known = await asyncio.to_thread(self.known.all)
        return changed(url, error, self._line(known, place(url), like))

    def forget(self, url: str) -> None:
        """Settle an address anew at its next use: the person may have changed what is known."""
        self._settled.pop(url, None)

    async def locate(self, text: str) -> str:
        """The URL of a coordinator that was named without a scheme: it is asked what it speaks.

        Raises:
            Unreachable: nothing answers there.
        """
        if "://" in text:
            return http_url(text)
        url = http_url(f"https://{place(http_url(text))}")
        if await asyncio.to_thread(self.known.find, place(url)) or await certificate_at(url, plain=True):
            return url
        return http_url(text)

    def _kept(self, where: str, like: str) -> str | None:
        """What is known of an address; a line of its own counts only where ``like`` has none."""
        known = self.known.all()
        return known.get(self._line(known, where, like))

    def _line(self, known: Mapping[str, str], where: str, like: str) -> str:
        return place(like) if like and place(like) in known else where

    def _plain(self, url: str, where: str, kept: str | None) -> bool:
        if kept is None:
            return True
        raise Untrusted(
            f"{url} is not encrypted, but the coordinator at {where} is known to speak TLS.",
            f"Use {url.replace('http://', 'https://', 1).replace('ws://', 'wss://', 1)}; if its TLS was "
            f"turned off on purpose, type: gridx trust --forget {where}",
        )

    async def _meet(self, url: str, where: str) -> Check:
        """The first time: by the system's CAs, else by the certificate that is there now."""
        if await _is_vouched_for(url):
            return ssl.create_default_context()
        found = await certificate_at(url)
        kept = await asyncio.to_thread(self.known.meet, where, found)
        self.met = kept
        log.warning(
            "First connection to %s. Compare its certificate with what the coordinator printed at its start: "
            "%s (kept in %s; from now on it has to be this one)",
            safetext.line(url),
            found,
            self.known.path,
        )
        return aiohttp.Fingerprint(digest(kept))


def changed(url: str, error: aiohttp.ServerFingerprintMismatch, known_as: str = "") -> Untrusted:
    """The certificate is not the one that is known, of ``known_as`` or of the address; nothing was sent."""
    where = place(url)
    return Untrusted(
        f"The certificate of {where} is another than before: somebody may be in between. Nothing was sent. "
        f"Known is {written(error.expected)}, now it is {written(error.got)}.",
        "Ask whoever runs the coordinator which one it prints at its start. If the new one is right, type: "
        f"gridx trust https://{known_as or where}",
    )


def not_vouched_for(url: str, error: aiohttp.ClientConnectorCertificateError) -> Untrusted:
    """A certificate that the system's CAs vouched for before, and now do not."""
    why = getattr(error.certificate_error, "verify_message", "") or "it is not valid"
    return Untrusted(
        f"The certificate of {place(url)} is not valid now: {safetext.line(str(why))}. Nothing was sent.",
        "Whoever runs the coordinator has to renew it.",
    )


async def certificate_at(url: str, *, plain: bool = False) -> str:
    """The fingerprint of the certificate at an address, whoever made it; only a handshake is sent.

    Args:
        plain: an address that does not speak TLS is no error, and has the fingerprint "".

    Raises:
        Unreachable: nothing answers there, or what answers does not speak TLS.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        found = await _handshake(url, context)
    except (ssl.SSLError, ConnectionError) as error:
        if isinstance(error, ConnectionRefusedError):
            _nothing_answers(url, error)
        if plain:
            return ""
        raise Unreachable(
            f"What answers at {place(url)} does not speak TLS.",
            f"Use http://{place(url)}, or start the coordinator with --tls auto.",
        ) from None
    return fingerprint(found)


async def _is_vouched_for(url: str) -> bool:
    try:
        await _handshake(url, ssl.create_default_context())
    except ssl.SSLCertVerificationError:
        return False
    except (ssl.SSLError, ConnectionError):
        return False  # found out, and said, when the certificate is looked at
    return True


async def _handshake(url: str, context: ssl.SSLContext) -> bytes:
    """Make a connection and no more; the certificate in its DER form."""
    host, _, port = place(url).rpartition(":")
    host = host.strip("[]")
    try:
        async with asyncio.timeout(HANDSHAKE_S):
            _, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=host)
    except TimeoutError:
        raise Unreachable(
            f"{place(url)} did not answer in time.", "Is a firewall between?", late=True
        ) from None
    except (ssl.SSLError, ConnectionError):
        raise
    except OSError as error:
        _nothing_answers(url, error)
    try:
        connection: ssl.SSLObject = writer.get_extra_info("ssl_object")
        return connection.getpeercert(binary_form=True) or b""
    finally:
        writer.transport.abort()


def _nothing_answers(url: str, error: OSError) -> NoReturn:
    known = error.errno is not None and error.errno in errno.errorcode
    why = os.strerror(error.errno) if known and error.errno else str(error.strerror or error)
    raise Unreachable(
        f"Nothing answers at {place(url)} ({safetext.line(why)}).",
        "Is the coordinator running there? Then see whether a firewall is between.",
        never_sent=True,
    ) from None
