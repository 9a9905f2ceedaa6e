"""Where a container engine may listen on this machine, in the order in which it is tried.

The settings' own address first, then DOCKER_HOST, the current docker context, and the usual sockets of
Linux, Docker Desktop, Colima, rootless Docker and Podman, and the pipe of Windows. What was tried is kept,
because "no engine" is only useful with the reasons.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gridx.errors import EngineMissing

WINDOWS_PIPE: Final = "npipe:////./pipe/docker_engine"


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files for an engine behind TLS."""

    ca: Path
    cert: Path
    key: Path
    verify: bool = True


@dataclass(frozen=True, slots=True)
class Candidate:
    """An address and who named it. ``chosen``: a person did, so that failing is worth an explanation."""

    address: str
    source: str
    certificates: Certificates | None = None
    chosen: bool = False


@dataclass(frozen=True, slots=True)
class Tried:
    """A candidate that did not answer, and why."""

    candidate: Candidate
    reason: str


def candidates(
    setting: str, environ: Mapping[str, str], home: Path, *, platform: str = sys.platform, uid: int = 0
) -> list[Candidate]:
    """Every place to look, without looking at any; duplicates keep their first place."""
    if setting:
        return [Candidate(_address(setting), "worker.engine", chosen=True)]
    found: list[Candidate] = []
    if host := environ.get("DOCKER_HOST"):
        found.append(Candidate(_address(host), "DOCKER_HOST", _environment_certificates(environ, home), True))
    config = Path(environ.get("DOCKER_CONFIG") or home / ".docker")
    context = _current_context(config, environ)
    if context is not None:
        found.append(context)
    if platform == "win32":
        found.append(Candidate(WINDOWS_PIPE, "the usual pipe"))
    else:
        run = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}"
        for path, owner in (
            ("/var/run/docker.sock", "Docker"),
            (f"{run}/docker.sock", "rootless Docker"),
            (f"{home}/.docker/run/docker.sock", "Docker Desktop"),
            (f"{home}/.docker/desktop/docker.sock", "Docker Desktop"),
            (f"{home}/.colima/default/docker.sock", "Colima"),
            (f"{home}/.config/colima/default/docker.sock", "Colima"),
            (f"{run}/podman/podman.sock", "rootless Podman"),
            ("/run/podman/podman.sock", "Podman"),
            (f"{home}/.local/share/containers/podman/machine/podman.sock", "Podman machine"),
        ):
            found.append(Candidate(f"unix://{path}", owner))
    return list({candidate.address: candidate for candidate in reversed(found)}.values())[::-1]


def absent(candidate: Candidate) -> str:
    """Why a candidate need not even be asked: an empty text when it is worth asking."""
    if not candidate.address.startswith("unix://"):
        return ""
    path = Path(candidate.address.removeprefix("unix://"))
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "not there"
    except PermissionError:
        return "permission denied"
    except OSError as error:
        return str(error.strerror)
    if not stat.S_ISSOCK(mode):
        return "not a socket"
    return "" if os.access(path, os.R_OK | os.W_OK) else "permission denied"


def missing(tried: Sequence[Tried], *, platform: str = sys.platform) -> EngineMissing:
    """The error for a machine on which nothing answered: what was tried, what to type."""
    shown = [t for t in tried if t.candidate.chosen or t.reason != "not there"] or list(tried)
    places = "; ".join(f"{t.candidate.address} ({t.candidate.source}): {t.reason}" for t in shown)
    others = len(tried) - len(shown)
    if others:
        places += f"; {others} other usual places: not there"
    denied = next((t for t in tried if t.reason == "permission denied"), None)
    if denied is not None and "Podman" in denied.candidate.source:
        hint = (
            f"{denied.candidate.address.removeprefix('unix://')} is root's. For an engine of your own, type: "
            "systemctl --user enable --now podman.socket"
        )
    elif denied is not None:
        hint = (
            f"This user may not open {denied.candidate.address.removeprefix('unix://')}. "
            "Type: sudo usermod -aG docker $USER, then sign in again."
        )
    elif any(t.candidate.source == "worker.engine" for t in tried):
        hint = "Check worker.engine in config.toml; empty, the usual places are tried."
    elif platform == "darwin":
        hint = "Start Docker Desktop, or type: colima start"
    elif platform == "win32":
        hint = "Install and start Docker Desktop."
    else:
        hint = (
            "Type: sudo systemctl start docker, or with Podman: systemctl --user enable --now podman.socket. "
            "If there is no engine: sudo apt install docker.io, or your system's docker or podman package."
        )
    return EngineMissing(
        f"No container engine answers. Tried: {places}.",
        hint,
        tried=[
            {"address": t.candidate.address, "source": t.candidate.source, "reason": t.reason} for t in tried
        ],
    )


def _address(text: str) -> str:
    return f"unix://{text}" if text.startswith("/") else text


def _environment_certificates(environ: Mapping[str, str], home: Path) -> Certificates | None:
    if not environ.get("DOCKER_TLS_VERIFY") and not environ.get("DOCKER_CERT_PATH"):
        return None
    folder = Path(environ.get("DOCKER_CERT_PATH") or home / ".docker")
    return _certificates(folder, verify=bool(environ.get("DOCKER_TLS_VERIFY")))


def _certificates(folder: Path, *, verify: bool) -> Certificates | None:
    found = Certificates(folder / "ca.pem", folder / "cert.pem", folder / "key.pem", verify)
    return found if found.cert.is_file() and found.key.is_file() else None


def _current_context(config: Path, environ: Mapping[str, str]) -> Candidate | None:
    """The context that the docker command would use; damaged files count as none."""
    name = environ.get("DOCKER_CONTEXT") or str(_read(config / "config.json").get("currentContext") or "")
    if name in ("", "default"):
        return None
    digest = hashlib.sha256(name.encode()).hexdigest()
    endpoints = _read(config / "contexts" / "meta" / digest / "meta.json").get("Endpoints")
    endpoint = endpoints.get("docker") if isinstance(endpoints, dict) else None
    host = endpoint.get("Host") if isinstance(endpoint, dict) else None
    if not isinstance(endpoint, dict) or not isinstance(host, str) or not host:
        return None
    folder = config / "contexts" / "tls" / digest / "docker"
    certificates = _certificates(folder, verify=not endpoint.get("SkipTLSVerify"))
    return Candidate(host, f"docker context {name}", certificates, chosen=True)


def _read(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
