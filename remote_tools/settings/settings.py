"""Find and check every setting, and keep its source: a file, a variable or a flag."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from remote_tools.errors import ConfigError
from remote_tools.settings import values as kinds
from remote_tools.settings.config_files import Given
from remote_tools.settings.layers import (
    Configuration,
    Layers,
    collect,
    dotenv_name,
    environ_layer,
    project_layer,
)

ALWAYS_EXCLUDED = (".git", "__pycache__", "*.pyc", ".remote_config", ".remote", ".venv")
ROOT_MARKS = ("tasks.py", "fabfile.py", "tasks/__init__.py", "fabfile/__init__.py")
SETTINGS_MARKS = ("invoke.yaml", ".remote_config")


@dataclass(frozen=True)
class About:
    """The type of a setting, and its help text."""

    kind: kinds.Kind
    help: str


def _setting(kind: kinds.Kind, default: Any, help: str) -> Any:
    return field(default=default, metadata={"about": About(kind, help)})


@dataclass(frozen=True)
class Settings:
    """Every setting of one command against one host.

    Args:
        root: the workspace, which is pushed; relative paths start here.
        sources: the source of each value, by setting.
        layers: the settings of every place, to compute another host's settings.
    """

    root: Path
    host: str = _setting(
        kinds.HOST, "", "the host as ssh knows it: an alias of ~/.ssh/config, a name, user@name"
    )
    code_path: str = _setting(kinds.HOST_PATH, "", "the folder to push the workspace to")
    venv_path: str | None = _setting(kinds.OPTIONAL_HOST_PATH, None, "the virtual environment to run in")
    python: str | None = _setting(kinds.TEXT, None, "the interpreter to run with if there is no venv_path")
    state_path: str | None = _setting(
        kinds.OPTIONAL_HOST_PATH, None, "the folder for our own state, if ~/.cache cannot be used"
    )
    cache_dir: str = _setting(kinds.FILLED_HOST_PATH, "~/.cache/autotune", "the root of the tuning cache")
    local_dir: Path = _setting(kinds.LOCAL_PATH, Path("cache"), "the folder to fetch results to")  # noqa: RUF009
    exclude: tuple[str, ...] = _setting(
        kinds.PATTERNS, ALWAYS_EXCLUDED, "files not to push, in addition to the default"
    )
    include: tuple[str, ...] = _setting(
        kinds.PATTERNS, (), "files to push although they are excluded or ignored by git"
    )
    rsync_options: tuple[str, ...] = _setting(
        kinds.RSYNC_WORDS, (), "more options for rsync, see rsync(1); they can run commands on the host"
    )
    ssh_options: tuple[str, ...] = _setting(
        kinds.SSH_WORDS, (), "more options for ssh, see ssh(1); they can run commands here"
    )
    timeout_s: float = _setting(kinds.SECONDS, 60.0, "timeout for a connection or transfer without data")
    connect_timeout_s: int = _setting(kinds.WHOLE_SECONDS, 10, "timeout for connecting to the host")
    persist_s: int = _setting(kinds.WHOLE_SECONDS, 600, "how long the shared connection outlives a command")
    keep_runs: int = _setting(kinds.COUNT, 20, "how many finished runs the host keeps")
    delete: bool = _setting(kinds.FLAG, True, "delete pushed files on the host after they are deleted here")
    device_lock: bool = _setting(kinds.FLAG, False, "let one benchmark at a time use the accelerator")
    hosts: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict, metadata={"about": About(kinds.HOSTS, "settings by host, and groups of hosts")}
    )
    extras: tuple[str, ...] = _setting(kinds.WORDS, (), "the project's extras that `inv provision` installs")
    sources: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    layers: Layers = field(default=Layers(), repr=False, compare=False)


ABOUT: Mapping[str, About] = {f.name: f.metadata["about"] for f in fields(Settings) if f.metadata}


def find_root(cwd: Path) -> Path:
    """Find the workspace: the nearest of `cwd` and its parents with tasks, else with settings, else `cwd`.

    Settings alone, such as those in a folder of results, do not make a workspace inside of another.

    Args:
        cwd: the folder to start at, absolute.
    """
    for marks in (ROOT_MARKS, SETTINGS_MARKS):
        for folder in (cwd, *cwd.parents):
            # remote_tools/.remote_config is the original place of the user's file; it marks no workspace.
            here = marks[:1] if folder.name == "remote_tools" else marks
            if any((folder / mark).is_file() for mark in here):
                return folder
    return cwd


def load(
    config: Configuration,
    root: Path,
    *,
    environ: Mapping[str, str] = os.environ,
    flags: Mapping[str, object] | None = None,
    fab_host: str | None = None,
    required: Sequence[str] = ("host", "code_path"),
) -> Settings:
    """Collect the settings from every place that may hold one; the later place wins.

    The places: defaults, ns.configure, /etc/invoke.yaml, ~/.invoke.yaml, the root's invoke.yaml,
    .remote_config, the host's entry in `hosts`, INVOKE_REMOTE_*, `inv -f FILE`, a task, flags, `fab -H`.

    Args:
        config: the context's config, Invoke's or Fabric's; a plain mapping counts as ns.configure.
        root: the workspace, see `find_root`.
        environ: the environment with the INVOKE_REMOTE_* variables.
        flags: values of the command's own flags by setting; None means not given.
        fab_host: the host that `fab -H` chose.
        required: settings that must not be empty.

    Raises:
        ConfigError: a key is unknown, a value is invalid, a setting is missing, or a file cannot be read.
    """
    layers = collect(config, root, environ, flags or {}, fab_host, ABOUT)
    settings = _resolve(root, layers)
    require(settings, required)
    return settings


def check_early(root: Path, environ: Mapping[str, str] = os.environ) -> None:
    """Report errors for which Invoke would print a traceback; call it when the tasks are imported.

    Invoke reads invoke.yaml after tasks.py, and rejects a variable that overrides a list (env.py: _cast).

    Raises:
        ConfigError: invoke.yaml or an INVOKE_REMOTE_* variable is invalid.
    """
    written = project_layer(root)
    for name, given in environ_layer(environ, ABOUT).items():
        _parse(name, given)
        if name in written and isinstance(written[name].value, list):
            example = as_typed(("a", "b c"))
            hint = f"write {name} as one string in that file, as in a shell: {name}: {example!r}"
            raise ConfigError(
                "settings", f"{given.source} cannot override the list at {written[name].source}", hint
            )


def at_host(settings: Settings, host: str, source: str = "--hosts") -> Settings:
    """Return the settings for another host, with its own entry in `hosts`.

    Raises:
        ConfigError: the host's entry has an invalid value.
    """
    above = (*settings.layers.above, {"host": Given(host, source)})
    return _resolve(settings.root, replace(settings.layers, above=above))


def expand(settings: Settings, names: Iterable[str]) -> tuple[str, ...]:
    """Replace groups by their hosts; return each host once, in order.

    Args:
        names: hosts and groups, also several in one word, separated by commas.

    Raises:
        ConfigError: a group contains itself.
    """
    found: dict[str, None] = {}

    def visit(name: str, inside: tuple[str, ...]) -> None:
        if name in inside:
            source, loop = settings.sources["hosts"], " > ".join((*inside, name))
            raise ConfigError("settings", f"{source}: hosts: {loop}: a group inside itself")
        for member in settings.hosts.get(name, (name,)):
            if member == name:
                found[name] = None
            else:
                visit(member, (*inside, name))

    for word in names:
        for name in filter(None, word.split(",")):
            visit(name, ())
    return tuple(found)


def require(settings: Settings, names: Sequence[str]) -> None:
    """Check the settings that the command needs.

    Raises:
        ConfigError: a setting is empty, and the hint says how to set it; or the host is a group.
    """
    host, root = settings.host, settings.root
    for name in names:
        if not getattr(settings, name):
            template = (root / ".remote_config.template").exists()
            ways = f"{dotenv_name(name)}=... in .remote_config"
            ways += " (cp .remote_config.template .remote_config)" if template else ""
            ways += f", or `{name}:` under `remote:` in invoke.yaml"
            if name == "host":
                inv = "./inv" if (root / "inv").exists() else "inv"
                ways += f", or --host NAME; to try it without a host of your own: {inv} demo"
            raise ConfigError("settings", f"no {name} is set" + (f" for {host}" if host else ""), ways)
    if "host" in names and settings.hosts.get(host, (host,)) != (host,):
        hint = f"name one host, or run a bench task with --hosts {host}"
        where = _place("host", settings.sources["host"])
        raise ConfigError("settings", f"{where}: {host} is a group of hosts", hint)


def _resolve(root: Path, layers: Layers) -> Settings:
    """Merge the layers, and check every value."""
    given = layers.merged()
    host = _parse("host", given["host"]) if "host" in given else ""
    entries = given["hosts"].value if "hosts" in given else {}
    if isinstance(entries, Mapping) and isinstance(entries.get(host), Mapping):
        given = layers.merged(entries[host])
    values = {name: _parse(name, value) for name, value in given.items()}
    sources = {name: given[name].source if name in given else "default" for name in ABOUT}
    values["local_dir"] = _local_dir(root, values, layers, _place("local_dir", sources["local_dir"]))
    values["exclude"] = (*ALWAYS_EXCLUDED, *values.get("exclude", ()))
    if "exclude" in given:
        sources["exclude"] = f"default, {sources['exclude']}"
    return Settings(root=root, sources=sources, layers=layers, **values)


def _local_dir(root: Path, values: Mapping[str, Any], layers: Layers, where: str) -> Path:
    """Return the folder for results, which holds no part of what decides about the workspace."""
    try:
        local_dir = root / Path(values.get("local_dir", Settings.local_dir)).expanduser()
        results = local_dir.resolve()
    except (OSError, RuntimeError) as error:  # ~nobody, or links in a circle
        raise ConfigError("settings", f"{where}: {error}", "inv config lists every setting") from error
    if root.is_relative_to(local_dir) or root.resolve().is_relative_to(results):
        hint = "choose a folder that does not contain the workspace"
        raise ConfigError("settings", f"{where}: {local_dir} contains the workspace", hint)
    for path in layers.files:
        if path.resolve().is_relative_to(results):
            message = f"{path} is in local_dir, and results set nothing"
            raise ConfigError("settings", message, f"mv or rm {shlex.quote(str(path))}")
    return local_dir


def _parse(name: str, given: Given) -> Any:
    try:
        return ABOUT[name].kind.parse(given.value)
    except ValueError as error:
        where = _place(name, given.source)
        raise ConfigError("settings", f"{where}: {error}", "inv config lists every setting") from None


def _place(name: str, source: str) -> str:
    # The name of a flag or variable already contains the setting's.
    named = source.lower().replace("-", "_").endswith(f"_{name}")
    return source if named else f"{source}: {name}"


def rows(settings: Settings) -> list[tuple[str, str, str]]:
    """Return every setting, its value as a user would type it, and its source."""
    return [(name, as_typed(getattr(settings, name)), settings.sources[name]) for name in ABOUT]


def as_typed(value: object) -> str:
    """Return a value as a user would type it."""
    if isinstance(value, tuple):
        return shlex.join(value)
    if isinstance(value, Mapping):
        return " ".join(
            name if members == (name,) else f"{name}={','.join(members)}" for name, members in value.items()
        )
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
