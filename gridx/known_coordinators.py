"""The certificates of coordinators that this person's programs have met, as ssh keeps host keys.

``~/.gridx/known_coordinators`` (or in ``GRIDX_HOME``) has a line for each: ``HOST:PORT SHA256:AB:CD:...``. A
certificate that a CA of the system vouches for is not kept there. A line that cannot be read stops everything
that would need it: a damaged file must not mean that any certificate is taken.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from gridx import credentials, privatefiles, safetext
from gridx.errors import ConfigError, SetupError

FILE: Final = "known_coordinators"
_LINE: Final = re.compile(r"(\S+:[0-9]{1,5}) (SHA256:[0-9A-F]{2}(?::[0-9A-F]{2}){31})")
_HEX: Final = re.compile(r"[0-9A-F]{64}")
_PORTS: Final = {"http": 80, "ws": 80, "https": 443, "wss": 443}


def fingerprint(certificate: bytes) -> str:
    """The SHA-256 of a certificate in its DER form, as OpenSSL writes it."""
    return written(hashlib.sha256(certificate).digest())


def written(digest: bytes) -> str:
    """32 bytes as people compare them: ``SHA256:AB:CD:...``."""
    return "SHA256:" + digest.hex(":").upper()


def digest(text: str) -> bytes:
    """The bytes of a fingerprint as :func:`written`.

    Raises:
        ConfigError: it is none; colons, capitals and the word in front do not matter.
    """
    bare = re.sub(r"(?i)\A(sha-?256)?( fingerprint)?[:= ]*", "", text.strip()).replace(":", "").upper()
    if not _HEX.fullmatch(bare):
        raise ConfigError(
            f"{safetext.line(text, limit=120)!r} is not the SHA-256 of a certificate.",
            "It is 64 hexadecimal digits, as the coordinator prints them at its start: SHA256:AB:CD:...",
        )
    return bytes.fromhex(bare)


def place(url: str) -> str:
    """``HOST:PORT`` of a URL, under which its certificate is kept."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return f"{f'[{host}]' if ':' in host else host}:{parts.port or _PORTS.get(parts.scheme, 443)}"


class KnownCoordinators:
    """The file; it is read and written each time, since other programs of this person use it, too."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path

    @property
    def path(self) -> Path:
        """Where it is. Raises SetupError for a user without a home folder."""
        return self._path or credentials.home() / FILE

    def all(self) -> dict[str, str]:
        """Fingerprints by place.

        Raises:
            SetupError: the file cannot be read, or a line of it is none.
        """
        try:
            path = self.path
        except SetupError:
            return {}  # nothing can be known where nothing can be kept
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise SetupError(
                f"{self.path} cannot be read: {error.strerror}.", "Check its owner and mode."
            ) from None
        except UnicodeDecodeError:
            lines = ["\0"]
        known = {}
        for number, line in enumerate(lines, 1):
            if line.strip() and not line.startswith("#"):
                found = _LINE.fullmatch(line.strip())
                if found is None:
                    raise SetupError(
                        f"Line {number} of {self.path} is not a coordinator and its certificate.",
                        "Remove that line; the certificate is then asked for anew.",
                    )
                known[found[1]] = found[2]
        return known

    def find(self, place: str) -> str | None:
        """The fingerprint that is known for a place."""
        return self.all().get(place)

    def keep(self, place: str, fingerprint: str) -> None:
        """Know a certificate from now on, in place of another. Raises SetupError if it cannot be written."""
        self._write({**self.all(), place: fingerprint})

    def meet(self, place: str, fingerprint: str) -> str:
        """Keep the certificate of a place that is not known yet; what is kept, should another be quicker."""
        known = self.all()
        if place not in known:
            known[place] = fingerprint
            self._write(known)
        return known[place]

    def forget(self, place: str) -> bool:
        """Know nothing of a place any more; whether something was known."""
        known = self.all()
        found = known.pop(place, None) is not None
        if found:
            self._write(known)
        return found

    def _write(self, known: dict[str, str]) -> None:
        privatefiles.make_folder(self.path.parent)
        text = "".join(f"{place} {known[place]}\n" for place in sorted(known))
        try:
            privatefiles.write(self.path, text.encode())
        except OSError as error:
            raise SetupError(
                f"{self.path} cannot be written: {error.strerror}.",
                "Check the folder's owner and mode, or set GRIDX_HOME to another one.",
            ) from None
