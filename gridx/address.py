"""Where a coordinator is: what people type, as the two URLs that programs need."""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import urlsplit

from gridx.errors import ConfigError

HTTP_PORT: Final = 8081
WS_PORT: Final = 8080
WS_PATH: Final = "/ws/worker"


def http_url(text: str, port: int = HTTP_PORT) -> str:
    """``HOST``, ``HOST:PORT`` or a URL to ``http://HOST:PORT``, without a slash at its end.

    Raises:
        ConfigError: no host, a bad port, a path, or a user and password in it.
    """
    scheme, host, named = _split(text, ("http", "https"))
    return f"{scheme}://{host}:{named or (443 if scheme == 'https' else port)}"


def named(text: str, port: int = HTTP_PORT) -> str:
    """As :func:`http_url`, but ``HOST:PORT`` where no scheme was given: what it speaks is found out later."""
    url = http_url(text, port)
    return url if "://" in text else url.removeprefix("http://")


def ws_url(text: str, port: int | None = None) -> str:
    """The workers' WebSocket of the coordinator at the HTTP address ``text``; as bare as that is.

    Args:
        port: None: the usual one; behind https the one of the address, which answers workers, too, and is the
            only one that a proxy has.
    """
    scheme, host, http_port = _split(text, ("http", "https"))
    if scheme == "https":
        return f"wss://{host}:{port or http_port or 443}{WS_PATH}"
    return f"{'ws://' if '://' in text else ''}{host}:{port or WS_PORT}{WS_PATH}"


def private(url: str) -> bool:
    """Whether nobody on the network can read along: by TLS, or since it does not leave this machine."""
    parts = urlsplit(url)
    if parts.scheme in ("https", "wss") or parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


def _split(text: str, schemes: tuple[str, ...]) -> tuple[str, str, int | None]:
    bare = text.strip()
    try:
        parts = urlsplit(bare if "://" in bare else f"{schemes[0]}://{_bracketed(bare)}")
        port = parts.port
    except ValueError:
        raise _refusal(text) from None
    if (
        parts.scheme not in schemes
        or not parts.hostname
        or parts.path not in ("", "/")
        or parts.query
        or parts.fragment
        or parts.username is not None
        or any(c.isspace() or not c.isprintable() for c in bare)
        or port == 0
    ):
        raise _refusal(text)
    host = parts.hostname
    return parts.scheme, f"[{host}]" if ":" in host else host, port


def _bracketed(text: str) -> str:
    """A bare IPv6 address gets the brackets that a URL wants."""
    return f"[{text}]" if text.count(":") > 1 and not text.startswith("[") else text


def _refusal(text: str) -> ConfigError:
    return ConfigError(
        f"{text!r} is not the address of a coordinator.",
        "It is a host, a host and a port, or a URL: 192.168.1.10, 192.168.1.10:8081, http://192.168.1.10:8081.",
    )
