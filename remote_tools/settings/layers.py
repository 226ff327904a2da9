"""Collect the settings from every file, variable and flag, lowest layer first."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from invoke.config import Config

from remote_tools.errors import ConfigError
from remote_tools.settings.config_files import Given, Layer, read_dotenv, read_yaml, short_path
from remote_tools.settings.tracked import Tracked

DOTENV_PLACES = (".remote_config", "remote_tools/.remote_config")
ENV_PREFIX = "INVOKE_REMOTE_"
# The original tools' names; every other setting is REMOTE_<NAME>.
ORIGINAL_NAMES = {"rsync_options": "RSYNC_OPTIONS", "ssh_options": "SSH_OPTIONS", "local_dir": "LOCAL_DIR"}


Configuration = Config | Mapping[str, Any]


@dataclass(frozen=True)
class Layers:
    """The settings of every place, lowest first.

    Args:
        below: places that a host's entry in `hosts` overrides: defaults in code, and files.
        above: places that override that entry: the environment, `-f FILE`, tasks, flags.
        notes: messages for the user about the files.
        files: the workspace's own files that hold settings.
    """

    below: tuple[Layer, ...] = ()
    above: tuple[Layer, ...] = ()
    notes: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()

    def merged(self, host: Layer | None = None) -> dict[str, Given]:
        """Merge the layers; the higher one wins, and the host's own entry is between below and above."""
        result: dict[str, Given] = {}
        for layer in (*self.below, host or {}, *self.above):
            for key, given in layer.items():
                result[key] = _joined(result[key], given) if key == "hosts" and key in result else given
        return result


def _joined(lower: Given, higher: Given) -> Given:
    """Merge two values of `hosts`; the higher one wins for a host that both have."""
    if isinstance(lower.value, Mapping) and isinstance(higher.value, Mapping):
        return replace(higher, value={**lower.value, **higher.value})
    return higher


def env_name(name: str) -> str:
    """Return the name of a setting's environment variable."""
    return ENV_PREFIX + name.upper()


def dotenv_name(name: str) -> str:
    """Return the name of a setting in .remote_config."""
    return ORIGINAL_NAMES.get(name, f"REMOTE_{name.upper()}")


def collect(
    config: Configuration,
    root: Path,
    environ: Mapping[str, str],
    flags: Mapping[str, object],
    fab_host: str | None,
    names: Collection[str],
) -> Layers:
    """Read every place that may hold a setting.

    Args:
        config: the context's config, Invoke's or Fabric's; a plain mapping counts as ns.configure.
        root: the workspace.
        environ: the environment with the INVOKE_REMOTE_* variables.
        flags: values of the command's own flags by setting; None means not given.
        fab_host: the host that `fab -H` chose.
        names: the names of all settings.

    Raises:
        ConfigError: a key is unknown, or a file cannot be read.
    """
    dotenv, notes = _dotenv_layer(root, names)
    places = (*(root / name for name in DOTENV_PLACES), *_invoke_files(f"{root}/"))
    above = (*_override_layers(config, root), _flag_layer(flags, fab_host))
    checked = tuple(_known(layer, names) for layer in (*_config_layers(config, root), *above))
    depth = len(checked) - len(above)
    below, above = (*checked[:depth], dotenv), (environ_layer(environ, names), *checked[depth:])
    return Layers(below, above, notes, tuple(path for path in places if path.exists()))


def _config_layers(config: Configuration, root: Path) -> Iterator[Layer]:
    """Yield the layers of ns.configure and the configuration files, lowest first."""
    # Only Invoke's private attributes keep its levels apart; the merged view does not have the sources.
    yield _layer(config._collection if isinstance(config, Config) else config, lambda *_: "ns.configure")
    for level, prefix in (("system", "/etc/"), ("user", "~/."), ("project", f"{root}/")):
        ours = _invoke_file(prefix)
        # Theirs is fabric.yaml under fab; it may also be invoke.json or invoke.py.
        theirs = getattr(config, f"_{level}_path", None)
        if theirs and Path(theirs).absolute() != ours:
            yield _file_layer(Path(theirs), getattr(config, f"_{level}"), root)
        if ours:
            yield _file_layer(ours, {}, root)


def _invoke_file(prefix: str) -> Path | None:
    """Find Invoke's configuration file, which `fab` does not read."""
    return next((path for path in _invoke_files(prefix) if path.exists()), None)


def _invoke_files(prefix: str) -> list[Path]:
    return [Path(f"{prefix}invoke.{suffix}").expanduser() for suffix in ("yaml", "yml")]


def project_layer(root: Path) -> Layer:
    """Read the `remote:` part of the root's invoke.yaml."""
    path = _invoke_file(f"{root}/")
    return _file_layer(path, {}, root) if path else {}


def _override_layers(config: Configuration, root: Path) -> Iterator[Layer]:
    """Yield the layers of `-f FILE` and the tasks, lowest first."""
    if not isinstance(config, Config):
        return
    if config._runtime_path:
        yield _file_layer(Path(config._runtime_path), config._runtime, root)
    yield _layer(config._overrides, lambda *_: "the program's overrides")
    yield _layer(config._modifications, lambda *_: "a task")


def _file_layer(path: Path, loaded: Mapping[str, Any], root: Path) -> Layer:
    """Read one configuration file; if it is not YAML, use what Invoke loaded, without line numbers."""
    path = path.expanduser().absolute()
    if path.suffix not in (".yaml", ".yml"):
        return _layer(loaded, lambda *_: short_path(path, root))
    file = read_yaml(path)
    return _layer(file.data, lambda *keys: file.place(*keys, root=root))


def _layer(data: object, place: Callable[..., str]) -> Layer:
    """Return the `remote:` part of a configuration, with the source of every value.

    Args:
        data: the whole configuration.
        place: returns the source of a path of keys.
    """
    if not isinstance(data, Mapping):
        raise ConfigError("settings", f"{place()}: not a mapping of settings")
    remote = data.get("remote") or {}
    if not isinstance(remote, Mapping):
        raise ConfigError("settings", f"{place('remote')}: remote: {remote!r} is not a mapping of settings")
    layer = _given(remote, place, "remote")
    if "hosts" in layer and isinstance(remote["hosts"], Mapping):
        entries = {
            str(name): _given(entry, place, "remote", "hosts", str(name))
            if isinstance(entry, Mapping)
            else entry
            for name, entry in remote["hosts"].items()
        }
        layer["hosts"] = replace(layer["hosts"], value=entries)
    return layer


def _given(values: Mapping[Any, object], place: Callable[..., str], *keys: str) -> dict[str, Given]:
    # A key without a value is ignored; an empty string is a value.
    return {str(k): Given(v, place(*keys, str(k))) for k, v in values.items() if v is not None}


def _dotenv_layer(root: Path, names: Iterable[str]) -> tuple[Layer, tuple[str, ...]]:
    """Read the user's .remote_config: at the root, or else at its original place."""
    found = [name for name in DOTENV_PLACES if (root / name).exists()]
    if not found:
        return {}, ()
    tracked = Tracked(root / found[0])
    try:
        layer = _renamed(read_dotenv(root / found[0], root), {dotenv_name(name): name for name in names})
    finally:
        tracked.refuse(found[0])
    notes = (f"{found[1]} is ignored: {found[0]} exists",) if len(found) > 1 else ()
    return layer, notes


def environ_layer(environ: Mapping[str, str], names: Iterable[str]) -> Layer:
    """Read the INVOKE_REMOTE_* variables."""
    given = {key: Given(value, key) for key, value in environ.items() if key.startswith(ENV_PREFIX)}
    return _renamed(given, {env_name(name): name for name in names})


def _renamed(layer: Layer, names: Mapping[str, str]) -> Layer:
    usable = {key: name for key, name in names.items() if name != "hosts"}  # a line cannot hold a mapping
    return {usable[key]: given for key, given in _known(layer, usable).items()}


def _flag_layer(flags: Mapping[str, object], fab_host: str | None) -> Layer:
    layer = {
        key: Given(value, f"--{key.replace('_', '-')}") for key, value in flags.items() if value is not None
    }
    if local_dir := flags.get("local_dir"):
        # A typed path is relative to the current folder; a path in a file is relative to the root.
        layer["local_dir"] = Given(str(Path(str(local_dir)).expanduser().absolute()), "--local-dir")
    return {**layer, "host": Given(fab_host, "fab -H")} if fab_host else layer


def _known(layer: Layer, names: Collection[str]) -> Layer:
    """Return the layer if all of its keys are settings.

    Raises:
        ConfigError: a key is unknown; the hint has the nearest known key.
    """
    for key, given in layer.items():
        if key not in names:
            nearest = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
            where = given.source if given.source == key else f"{given.source}: {key}"
            hint = f"the nearest known key is {nearest[0]}" if nearest else f"known keys: {', '.join(names)}"
            raise ConfigError("settings", f"{where}: unknown key", hint)
        if key == "hosts" and isinstance(given.value, Mapping):
            for entry in given.value.values():
                if isinstance(entry, Mapping):
                    _known(entry, [name for name in names if name not in ("host", "hosts")])
    return layer
