"""Read invoke.yaml and .remote_config, with the line of every key for `inv config` and for errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import Any

from invoke import util

from remote_tools.errors import ConfigError

# Invoke's PyYAML: its own copy, or the system's if a distribution removed that copy. Untyped.
yaml: Any = vars(util)["yaml"]


@dataclass(frozen=True)
class Given:
    """A value as written, and its source.

    Args:
        value: the value in the file, variable or flag, not yet checked.
        source: `invoke.yaml:7`, `INVOKE_REMOTE_HOST`, `--host`, `default`.
    """

    value: object
    source: str


Layer = Mapping[str, Given]


@dataclass(frozen=True)
class YamlFile:
    """A parsed YAML file.

    Args:
        path: the file's path.
        data: its contents, as `yaml.safe_load` returns them.
        lines: line number (from 1) of every mapping key, by the path of keys that leads to it.
    """

    path: Path
    data: Any
    lines: Mapping[tuple[str, ...], int]

    def place(self, *keys: str, root: Path) -> str:
        """Return the file and line of a key, with a short path."""
        line = self.lines.get(keys)
        return short_path(self.path, root) + (f":{line}" if line else "")


def short_path(path: Path, root: Path) -> str:
    """Shorten a path for a message: relative to the root, or to `~`."""
    for base, prefix in ((root, ""), (Path.home(), "~/")):
        if path.is_relative_to(base):
            return prefix + str(path.relative_to(base))
    return str(path)


def read_text(path: Path) -> str:
    """Return a file's text.

    Raises:
        ConfigError: the file cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise _unreadable(path, error) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError("settings", f"{path}:{line}: not UTF-8", f"file {path}") from error


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError("settings", f"{path}: {error.strerror}", f"ls -l {path}")


def read_yaml(path: Path) -> YamlFile:
    """Parse a YAML file, again only if it has changed.

    Raises:
        ConfigError: the file cannot be read, or is not YAML; the message has the line.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return _parsed(path, stat.st_mtime_ns, stat.st_size)


@lru_cache
def _parsed(path: Path, _mtime_ns: int, _size_bytes: int) -> YamlFile:
    try:
        loader = yaml.SafeLoader(read_text(path))
        node = loader.get_single_node()
        data = loader.construct_document(node) if node else {}
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigError("settings", f"{path}:{mark.line + 1}: {error.problem}", f"edit {path}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError("settings", f"{path}: {error}", f"edit {path}") from error
    return YamlFile(path, data, dict(_key_lines(node, ())))


def _key_lines(node: Any, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            path = (*above, str(key.value))
            yield path, key.start_mark.line + 1
            yield from _key_lines(value, path)


def read_dotenv(path: Path, root: Path) -> Layer:
    """Read a KEY=VALUE file with python-dotenv; nothing in it is executed or interpolated.

    Returns:
        The values by key.

    Raises:
        ConfigError: the file cannot be read, or a line is not KEY=VALUE (dotenv would skip it).
    """
    from dotenv.parser import parse_stream  # takes 11 ms, only for users of a .remote_config

    given: dict[str, Given] = {}
    for binding in parse_stream(StringIO(read_text(path))):
        written = binding.original.string
        blank_lines = written[: len(written) - len(written.lstrip())].count("\n")
        place = f"{short_path(path, root)}:{binding.original.line + blank_lines}"
        if binding.error or (binding.key is not None and binding.value is None):
            raise ConfigError("settings", f"{place}: not KEY=VALUE: {written.strip()}", f"edit {path}")
        if binding.key is not None:
            given[binding.key] = Given(binding.value, place)
    return given
