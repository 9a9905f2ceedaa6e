"""Settings: defaults < config.toml < environment < flags.

Every key has a type, a unit in its name where it has one, and a place in ``config.example.toml``. An unknown
key or a bad value is refused with the key's path and what is allowed.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct
from msgspec import field as default

from gridx import hours
from gridx.errors import ConfigError
from gridx.messages.bounds import UserName

Port = Annotated[int, Meta(ge=0, le=65535)]
Seconds = Annotated[float, Meta(gt=0, le=10 * 365 * 86400)]
Credits = Decimal
"""An amount in credits, 0 to a thousand million, with at most six decimals; see :func:`microcredits`."""
MAX_CREDITS: Final = 1_000_000_000

Role = Literal["standalone", "coordinator", "worker", "viewer"]


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the sections: frozen, and no key that is not declared."""


class CoordinatorSettings(Section, frozen=True):
    """``[coordinator]``: where it listens and keeps its data. Port 0 means any free port."""

    host: str = ""
    """Empty: every interface for a coordinator, loopback for standalone."""
    http_port: Port = 8081
    ws_port: Port = 8080
    tls: str = "off"
    """``off``, ``auto`` (a certificate is made at the first start), or ``CERT,KEY``: two PEM files."""
    db_path: str = ""
    """Empty: ``grid.db`` in the data folder."""
    heartbeat_s: Seconds = 2.0
    lease_s: Seconds = 90.0
    output_cap_bytes: Annotated[int, Meta(ge=1024, le=256 << 20)] = 1 << 20
    max_connections_per_address: Annotated[int, Meta(ge=8, le=65536)] = 1024
    """Of users and workers together. A proxy in front is one address."""
    max_queued_per_user: Annotated[int, Meta(ge=1)] = 20_000
    max_array: Annotated[int, Meta(ge=1, le=100_000)] = 20_000
    """Elements that one array may have."""


class AuthSettings(Section, frozen=True):
    """``[auth]``: who may have an account."""

    registration: Literal["open", "invite", "closed"] = "open"
    invites: list[str] = []
    """Codes that let one sign up while ``registration`` is ``invite``."""
    token_days: Annotated[int, Meta(ge=1, le=3650)] = 90
    hash_threads: Annotated[int, Meta(ge=1, le=64)] = 2
    hash_memory_mb: Annotated[int, Meta(ge=8, le=4096)] = 64
    login_failures: Annotated[int, Meta(ge=1, le=10_000)] = 10
    """Failed log-ins of one account from one address, in ``login_window_s``, before it has to wait."""
    login_window_s: Seconds = 300.0
    admin_user: str = "admin"


class CreditSettings(Section, frozen=True):
    """``[credits]``: grants and prices, in credits."""

    signup_grant: Credits = Decimal(100)
    signup_grants_per_address: Annotated[int, Meta(ge=0)] = 20
    """Users of one address that get it in a day; further ones start with nothing."""
    signup_grants_per_day: Annotated[int, Meta(ge=0)] = 200
    signup_grants_total: Annotated[int, Meta(ge=0)] | None = None
    core_hour: Credits = Decimal(1)
    gib_hour: Credits = Decimal("0.1")
    gpu_hour: Credits = Decimal(10)
    fee_percent: Decimal = Decimal(0)
    """Part of each charge that goes to the treasury."""


class SchedulerSettings(Section, frozen=True):
    """``[scheduler]``: how fair share forgets, and when a waiting job gets a machine kept free for it."""

    half_life_s: Seconds = 3600.0
    reserve_after_s: Seconds = 60.0
    max_running_per_user: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    """Jobs that one user may have running at once; 0: as many as fit."""


class FileSettings(Section, frozen=True):
    """``[files]``: what users may send, get back and keep. Sizes are in MiB."""

    max_file_mb: Annotated[int, Meta(ge=1, le=1 << 20)] = 1024
    """The largest single file that is taken."""
    quota_mb: Annotated[int, Meta(ge=0, le=1 << 30)] = 5120
    """What one user's uploads and jobs' files may take together."""
    keep_days: Annotated[int, Meta(ge=1, le=3650)] = 14
    """How long files and printed output are kept after their last use."""
    out_mb: Annotated[int, Meta(ge=0, le=1 << 20)] = 256
    """What one job may give back, all files together."""
    out_files: Annotated[int, Meta(ge=0, le=2000)] = 1000
    out_depth: Annotated[int, Meta(ge=1, le=100)] = 16
    """Folders below each other in ``out/``."""


class WorkerSettings(Section, frozen=True):
    """``[worker]``: whose machine this is, where its coordinator is, and what it offers at most."""

    user: str = ""
    name: str = ""
    """Empty: the host's name."""
    coordinator_http: str = ""
    """Empty: ``http://COORDINATOR_IP:8081``, or the coordinator in the same process."""
    coordinator_ws: str = ""
    sandbox: Literal["auto", "docker", "process"] = "auto"
    engine: str = ""
    """Address of the container engine; empty: the usual places are tried in order."""
    runtimes: list[str] = default(default_factory=lambda: ["gridx-runtime:default"])
    """Images that may run, and no others. A tag or a digest."""
    oci_runtime: str = ""
    """A hardened runtime of the engine, such as ``runsc``; empty: the engine's default."""
    cpus: Annotated[float, Meta(ge=0, le=1024)] | None = None
    memory_mb: Annotated[int, Meta(ge=0, le=4 << 20)] | None = None
    gpus: list[str] | None = None
    """UUIDs to offer; unset: all; an empty list: none."""
    pids: Annotated[int, Meta(ge=8, le=32768)] = 64
    warm: Annotated[int, Meta(ge=0, le=64)] = 1
    """Containers kept started ahead, so that a job need not wait for one."""
    reuse: bool = True
    """Run the same owner's next job in the same container, after a full clean."""
    disk_mb: Annotated[int, Meta(ge=16, le=1 << 30)] = 10_240
    """What jobs may use of the disk here: input files that are kept, output and results not yet sent."""
    own_jobs_only: bool = False
    only_users: Annotated[list[UserName], Meta(max_length=100)] = []
    """Whose jobs are taken beside the owner's; none named: everybody's."""
    hours: str = ""
    """When jobs may run, in local time, like ``mon-fri 18:00-08:00, sat-sun``; empty: always."""
    max_load: Annotated[float, Meta(gt=0, le=4096)] | None = None
    """New jobs are taken while other programs keep fewer processors busy than this; unset: always."""
    only_when_idle_s: Seconds | None = None
    """Jobs may run when there was no keyboard, mouse or terminal input for so long; unset: always."""
    on_battery: bool = True
    """False: jobs may run on mains power only."""
    when_closed: Literal["finish", "give_back"] = "finish"
    """What becomes of running jobs when hours end, somebody comes back or the mains power goes."""
    drain_s: Seconds = 30.0
    """How long running jobs may still take when the worker is told to stop."""


class ClientSettings(Section, frozen=True):
    """``[client]``: where the shell commands look for the grid."""

    coordinator: str = ""
    user: str = ""
    timeout_s: Seconds = 30.0


class LogSettings(Section, frozen=True):
    """``[log]``"""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class DashboardSettings(Section, frozen=True):
    """``[dashboard]``: how it looks, and which keys do what."""

    theme: Literal["dark", "light"] = "dark"
    ascii: bool = False
    """Draw with ASCII alone, as ``--ascii`` does."""
    keys: list[str] = []
    """``COMMAND=KEY`` each, several keys separated by blanks."""


class Settings(Section, frozen=True):
    """Everything that can be set."""

    role: Role = "standalone"
    data_dir: str = ""
    """Empty: the platform's user data folder."""
    coordinator: CoordinatorSettings = CoordinatorSettings()
    auth: AuthSettings = AuthSettings()
    credits: CreditSettings = CreditSettings()
    files: FileSettings = FileSettings()
    scheduler: SchedulerSettings = SchedulerSettings()
    worker: WorkerSettings = WorkerSettings()
    client: ClientSettings = ClientSettings()
    log: LogSettings = LogSettings()
    dashboard: DashboardSettings = DashboardSettings()

    @property
    def data_path(self) -> Path:
        """The data folder: as set, else the platform's. It is not made here."""
        if self.data_dir:
            return Path(self.data_dir).expanduser()
        import platformdirs  # here: 30 ms that --help need not pay

        try:
            return Path(platformdirs.user_data_dir("gridx", appauthor=False))
        except RuntimeError:
            raise ConfigError(
                "This user has no home folder for the data.", "Set HOME, or GRIDX_DATA_DIR=FOLDER."
            ) from None

    @property
    def db_path(self) -> Path:
        """The coordinator's database file."""
        return (
            Path(self.coordinator.db_path).expanduser()
            if self.coordinator.db_path
            else self.data_path / "grid.db"
        )

    @property
    def tls_files(self) -> tuple[Path, ...]:
        """Certificate and key of one's own; none where ``tls`` is ``off`` or ``auto``."""
        if self.coordinator.tls in ("off", "auto"):
            return ()
        parts = [part.strip() for part in self.coordinator.tls.split(",")]
        return tuple(Path(part).expanduser() for part in parts if part)


# Names that are shorter than GRIDX_SECTION_KEY, for what is set most.
ALIASES: Final[Mapping[str, tuple[str, ...]]] = {
    "GRIDX_HTTP_PORT": ("coordinator", "http_port"),
    "GRIDX_WS_PORT": ("coordinator", "ws_port"),
    "GRIDX_DB_PATH": ("coordinator", "db_path"),
    "GRIDX_LOG_LEVEL": ("log", "level"),
    "COORDINATOR_HTTP": ("worker", "coordinator_http"),
    "COORDINATOR_WS": ("worker", "coordinator_ws"),
    "GRIDX_COORDINATOR": ("client", "coordinator"),
    "GRIDX_USER": ("client", "user"),
}
# Read elsewhere, and no settings: secrets do not belong into files, and these name the files themselves.
NOT_SETTINGS: Final = frozenset(
    {"GRIDX_PASSWORD", "GRIDX_TOKEN", "GRIDX_CONFIG", "GRIDX_HOME", "GRIDX_REQUIRE_ENGINE"}
)
# Left to the tests of this project.
TEST_PREFIX: Final = "GRIDX_TEST_"


def default_config_path() -> Path | None:
    """``config.toml`` in the platform's user configuration folder; None where the user has no home."""
    import platformdirs

    try:
        return Path(platformdirs.user_config_dir("gridx", appauthor=False)) / "config.toml"
    except RuntimeError:
        return None


def microcredits(amount: Decimal, key: str = "amount") -> int:
    """Credits to microcredits, exactly.

    Raises:
        ConfigError: negative, too many, or more than six decimals.
    """
    if not amount.is_finite() or not 0 <= amount <= MAX_CREDITS or amount * 1_000_000 % 1:
        raise ConfigError(
            f"{key} = {amount} is not allowed.",
            f"It must be a number of credits from 0 to {MAX_CREDITS:,} with at most six decimals.",
            key=key,
        )
    return int(amount * 1_000_000)


def load(
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[tuple[str, ...], Any] | None = None,
) -> Settings:
    """Put the settings together.

    Args:
        path: the TOML file; None: ``GRIDX_CONFIG``, else the default place if a file is there.
        environ: environment variables; None: the process's.
        flags: what the command line set, by key path; None values are skipped.

    Raises:
        ConfigError: an unknown key, a bad value, or a file that cannot be read.
    """
    environ = os.environ if environ is None else environ
    tree: dict[str, Any] = {}
    named = path or (Path(environ["GRIDX_CONFIG"]) if environ.get("GRIDX_CONFIG") else None)
    source = named or default_config_path()
    if source is not None and (named is not None or source.is_file()):
        tree = _read(source)
        _check_keys(tree, str(source))
    for name, value in sorted(environ.items()):
        key = _key_of(name)
        if key is not None:
            _put(tree, key, _parse(key, value, name))
    for key, value in (flags or {}).items():
        if value is not None:
            _put(tree, key, value)
    try:
        settings = msgspec.convert(_numbers(tree), Settings, strict=True)
    except msgspec.ValidationError as error:
        raise _explain(error, tree) from None
    for name in ("signup_grant", "core_hour", "gib_hour", "gpu_hour"):
        microcredits(getattr(settings.credits, name), f"credits.{name}")
    if settings.coordinator.tls not in ("off", "auto") and len(settings.tls_files) != 2:
        raise ConfigError(
            f"coordinator.tls = {settings.coordinator.tls!r} is not allowed.",
            "It must be off, auto, or the files of a certificate and of its key with a comma: CERT,KEY.",
            key="coordinator.tls",
        )
    if not 0 <= settings.credits.fee_percent <= 100:
        raise ConfigError(
            f"credits.fee_percent = {settings.credits.fee_percent} is not allowed.",
            "It must be a number from 0 to 100.",
            key="credits.fee_percent",
        )
    hours.parse(settings.worker.hours)
    return settings


def keys() -> dict[tuple[str, ...], Any]:
    """Every key with its type, for the documentation's own check."""
    found: dict[tuple[str, ...], Any] = {}
    for name, kind in get_type_hints(Settings, include_extras=True).items():
        if isinstance(kind, type) and issubclass(kind, Section):
            for key, inner in get_type_hints(kind, include_extras=True).items():
                found[(name, key)] = inner
        else:
            found[(name,)] = kind
    return found


def env_name(key: tuple[str, ...]) -> str:
    """The environment variable of a key: ``GRIDX_SECTION_KEY``."""
    return "GRIDX_" + "_".join(key).upper()


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file, parse_float=Decimal)
    except FileNotFoundError:
        raise ConfigError(
            f"There is no configuration file {path}.", "Copy config.example.toml there."
        ) from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.", "Check its owner and mode.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.", "See config.example.toml.") from None


def _numbers(tree: Mapping[str, Any], above: tuple[str, ...] = ()) -> dict[str, Any]:
    """Decimals where amounts are wanted, floats elsewhere: TOML has one notation for both."""
    known = keys()
    result: dict[str, Any] = {}
    for name, value in tree.items():
        key = (*above, name)
        if isinstance(value, dict):
            value = _numbers(value, key)
        elif known.get(key) is Decimal:
            value = Decimal(value) if isinstance(value, int) and not isinstance(value, bool) else value
        elif isinstance(value, Decimal):
            value = float(value)
        result[name] = value
    return result


def _check_keys(tree: Mapping[str, Any], source: str) -> None:
    known = keys()
    for name, value in tree.items():
        section = isinstance(value, dict)
        for key in [(name, inner) for inner in value] if section else [(name,)]:
            if key not in known:
                raise _unknown(".".join(key), [".".join(k) for k in known], source)
        if section and not any(k[0] == name and len(k) == 2 for k in known):
            raise _unknown(name, sorted({k[0] for k in known}), source)


def _unknown(name: str, known: list[str], source: str) -> ConfigError:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    hint = f"Did you mean {close[0]}?" if close else "config.example.toml lists every key."
    return ConfigError(f"{source}: there is no setting {name}.", hint, key=name)


def _key_of(name: str) -> tuple[str, ...] | None:
    if name in ALIASES:
        return ALIASES[name]
    if not name.startswith("GRIDX_") or name in NOT_SETTINGS or name.startswith(TEST_PREFIX):
        return None
    by_name = {env_name(key): key for key in keys()}
    if name not in by_name:
        raise _unknown(name, [*by_name, *ALIASES], "environment")
    return by_name[name]


def _parse(key: tuple[str, ...], text: str, name: str) -> Any:
    """An environment variable's text as the type of its key; lists are separated by commas."""
    kind = keys()[key]
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    options = get_args(kind) if get_origin(kind) in (Union, type(int | None)) else (kind,)
    plain = next(get_args(k)[0] if get_origin(k) is Annotated else k for k in options if k is not type(None))
    try:
        if plain is bool:
            return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[
                text.lower()
            ]
        if get_origin(plain) is list:
            return [part.strip() for part in text.split(",") if part.strip()]
        if plain in (int, Decimal, float):
            return plain(text)
    except (KeyError, ValueError, ArithmeticError):
        raise ConfigError(f"{name}={text!r} is not {_allowed(key)}.", "", key=".".join(key)) from None
    return text


def _put(tree: dict[str, Any], key: tuple[str, ...], value: Any) -> None:
    for part in key[:-1]:
        tree = tree.setdefault(part, {})
    tree[key[-1]] = value


def _allowed(key: tuple[str, ...]) -> str:
    """What a key takes, in words."""
    kind = keys()[key]
    bounds = ""
    if get_origin(kind) in (Union, type(int | None)):
        kind = next(k for k in get_args(kind) if k is not type(None))
    while get_origin(kind) is Annotated:
        kind, *notes = get_args(kind)
        for note in notes:
            parts = [
                f"{word} {getattr(note, name):,}"
                for name, word in (
                    ("ge", "at least"),
                    ("gt", "more than"),
                    ("le", "at most"),
                    ("max_length", "at most"),
                )
                if getattr(note, name, None) is not None
            ]
            bounds = ", " + " and ".join(parts) if parts else bounds
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    if get_origin(kind) is list:
        return ("a list of user names" if get_args(kind) == (UserName,) else "a list of texts") + bounds
    words = {
        int: "a whole number",
        float: "a number",
        Decimal: "a number",
        bool: "true or false",
        str: "a text",
    }
    return words.get(kind, "a value of another type") + bounds


def _explain(error: msgspec.ValidationError, tree: Mapping[str, Any]) -> ConfigError:
    _, _, path = str(error).partition(" - at `")
    name = path.rstrip("`").removeprefix("$").removeprefix(".").split("[")[0]
    key = tuple(name.split("."))
    value: Any = tree
    for part in key:
        value = value.get(part) if isinstance(value, dict) else None
    if key not in keys():
        return ConfigError(f"The settings are not valid: {error}.", "config.example.toml lists every key.")
    return ConfigError(f"{name} = {str(value)!r} is not allowed.", f"It must be {_allowed(key)}.", key=name)
