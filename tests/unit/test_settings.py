"""Settings: which place wins, where each value came from, and what is said of a wrong one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fabric.config import Config as FabricConfig
from invoke.config import Config

from remote_tools.errors import ConfigError
from remote_tools.settings.layers import Configuration
from remote_tools.settings.reference import reference
from remote_tools.settings.settings import (
    ALWAYS_EXCLUDED,
    Settings,
    at_host,
    check_early,
    expand,
    find_root,
    load,
    rows,
)

REPO = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    folder.mkdir()
    return folder


def invoke_config(
    root: Path, collection: Mapping[str, Any] | None = None, runtime: Path | None = None
) -> Config:
    """Load a configuration in the order in which `inv` does."""
    config = Config(project_location=root, runtime_path=runtime)
    config.load_project()
    config.load_runtime()
    config.load_collection(dict(collection or {}))
    return config


def look(root: Path, config: Configuration | None = None, **given: Any) -> Settings:
    given = {"environ": {}, "required": (), **given}
    return load(invoke_config(root) if config is None else config, root, **given)


def value_at(settings: Settings, name: str) -> tuple[object, str]:
    return getattr(settings, name), settings.sources[name]


def failure(root: Path, **given: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        look(root, **given)
    assert 78 == caught.value.code
    return str(caught.value.message)


def test_an_empty_workspace_has_the_defaults(root: Path) -> None:
    settings = look(root)
    expected = Settings(root, local_dir=root / "cache", exclude=ALWAYS_EXCLUDED)
    assert expected == settings
    assert {"default"} == set(settings.sources.values())


def test_each_place_wins_over_the_one_before_it(root: Path, home: Path) -> None:
    def host(**given: Any) -> tuple[object, str]:
        return value_at(look(root, invoke_config(root, {"remote": {"host": "ns"}}, runtime), **given), "host")

    runtime: Path | None = None
    assert ("ns", "ns.configure") == host()
    (home / ".invoke.yaml").write_text("remote:\n  host: user\n")
    assert ("user", "~/.invoke.yaml:2") == host()
    (root / "invoke.yaml").write_text("# ours\n\nremote:\n  delete: no\n  host: project\n")
    assert ("project", "invoke.yaml:5") == host()
    (root / ".remote_config").write_text("# mine\n\nREMOTE_HOST=mine\n")
    assert ("mine", ".remote_config:3") == host()
    environ = {"INVOKE_REMOTE_HOST": "environ", "HOST": "no"}
    assert ("environ", "INVOKE_REMOTE_HOST") == host(environ=environ)
    runtime = root / "other.yaml"
    runtime.write_text("remote: {host: runtime}\n")
    assert ("runtime", "other.yaml:1") == host(environ=environ)
    assert ("flag", "--host") == host(environ=environ, flags={"host": "flag"})
    assert ("fab", "fab -H") == host(environ=environ, flags={"host": "flag"}, fab_host="fab")


def test_a_task_may_set_what_it_likes(root: Path) -> None:
    config = invoke_config(root, {"remote": {"host": "ns"}})
    config.remote.host = "task"
    assert ("task", "a task") == value_at(look(root, config), "host")


def test_fab_reads_the_same_invoke_yaml(root: Path) -> None:
    (root / "invoke.yaml").write_text("remote:\n  host: project\n  code_path: ~/w\n")
    (root / "fabric.yaml").write_text("remote:\n  host: fabric\n  python: python3.12\n")
    config = FabricConfig(project_location=root, lazy=True)
    config.load_project()
    settings = look(root, config)
    assert ("project", "invoke.yaml:2") == value_at(settings, "host")
    assert ("python3.12", "fabric.yaml:3") == value_at(settings, "python")
    assert ("~/w", "invoke.yaml:3") == value_at(settings, "code_path")


def test_an_invoke_json_counts_without_line_numbers(root: Path) -> None:
    (root / "invoke.json").write_text('{"remote": {"host": "json"}}')
    assert ("json", "invoke.json") == value_at(look(root), "host")


def test_a_plain_mapping_is_enough_for_a_python_caller(root: Path) -> None:
    settings = load({"remote": {"host": "h"}}, root, environ={}, flags={"code_path": "~/w"})
    assert ("h", "ns.configure") == value_at(settings, "host")
    assert ("~/w", "--code-path") == value_at(settings, "code_path")


def test_remote_config_keeps_its_original_names_and_place(root: Path) -> None:
    (root / "remote_tools").mkdir()
    (root / "remote_tools" / ".remote_config").write_text(
        "REMOTE_HOST=trn1\nexport REMOTE_CODE_PATH='~/a b'\nREMOTE_VENV_PATH=/v/$HOME\n"
        "RSYNC_OPTIONS=\"-av --exclude='.git' --exclude='a b'\"\nSSH_OPTIONS=\"-o ConnectTimeout=10\"\n"
        "REMOTE_CACHE_DIR=/mnt/c\nLOCAL_DIR=results\nREMOTE_KEEP_RUNS=3\nREMOTE_EXCLUDE=\"*.tmp 'a b'\"\n"
    )
    expected = Settings(
        root,
        host="trn1",
        code_path="~/a b",
        venv_path="/v/$HOME",
        rsync_options=("-av", "--exclude=.git", "--exclude=a b"),
        ssh_options=("-o", "ConnectTimeout=10"),
        cache_dir="/mnt/c",
        local_dir=root / "results",
        keep_runs=3,
        exclude=(*ALWAYS_EXCLUDED, "*.tmp", "a b"),
    )
    settings = look(root)
    assert expected == settings
    assert "remote_tools/.remote_config:4" == settings.sources["rsync_options"]
    assert "default, remote_tools/.remote_config:9" == settings.sources["exclude"]


def test_the_remote_config_at_the_root_stands_before_the_other_and_says_so(root: Path) -> None:
    (root / "remote_tools").mkdir()
    (root / "remote_tools" / ".remote_config").write_text("REMOTE_HOST=old\nREMOTE_PYTHON=p\n")
    (root / ".remote_config").write_text("REMOTE_HOST=new\n")
    settings = look(root)
    assert ("new", None) == (settings.host, settings.python)
    assert ("remote_tools/.remote_config is ignored: .remote_config exists",) == settings.layers.notes


def test_nothing_in_a_remote_config_is_executed(root: Path) -> None:
    (root / ".remote_config").write_text(
        f"REMOTE_HOST=$(touch {root}/ran)\nREMOTE_PYTHON=`touch {root}/ran`\n"
    )
    assert "is not a host name" in failure(root)
    assert not (root / "ran").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("REMOTE_HOST=a\nnonsense\n", ".remote_config:2: not KEY=VALUE: nonsense"),
        ("\n\nREMOTE_HOST\n", ".remote_config:3: not KEY=VALUE: REMOTE_HOST"),
        ("A='open\nREMOTE_HOST=a\n", ".remote_config:1: not KEY=VALUE: A='open"),
        (
            "REMOTE_HSOT=a\n",
            ".remote_config:1: REMOTE_HSOT: unknown key\n  next: the nearest known key is REMOTE_HOST",
        ),
        ('REMOTE_EXCLUDE="a\0b"\n', "holds a control character"),
        ("REMOTE_HOST=a\u009b2J\n", "holds a control character"),
        ("REMOTE_TIMEOUT_S=soon\n", ".remote_config:1: timeout_s: 'soon' is not a number of seconds above 0"),
        ('RSYNC_OPTIONS="-a --exclude=\'x"\n', ".remote_config:1: rsync_options: No closing quotation"),
        ("REMOTE_CODE_PATH=$HOME/w\n", "'$HOME/w': variables are not expanded; write ~ for the home folder"),
        ("REMOTE_HOST=-oProxyCommand=x\n", "'-oProxyCommand=x' is not a host name"),
        ("REMOTE_HOST=../up\n", "'../up' is not a host name, an alias or user@host"),
        ("LOCAL_DIR=.\n", "contains the workspace"),
        ("LOCAL_DIR=\n", ".remote_config:1: local_dir: is empty"),
    ],
)
def test_a_wrong_remote_config_is_named_with_its_line(root: Path, text: str, expected: str) -> None:
    (root / ".remote_config").write_text(text)
    assert expected in failure(root)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("remote:\n  code_pth: x\n", "invoke.yaml:2: code_pth: unknown key\n  next: the"),
        ("remote:\n  zzzzz: x\n", "invoke.yaml:2: zzzzz: unknown key\n  next: known keys: host, code_path, "),
        ("remote:\n  host: a\n   bad: b\n", "invoke.yaml:3: mapping values are not allowed here"),
        ("remote: [a]\n", "invoke.yaml:1: remote: ['a'] is not a mapping of settings"),
        ("- a\n", "invoke.yaml: not a mapping of settings"),
        ("remote:\n  python: 3.10\n", "invoke.yaml:2: python: 3.1 is not text; put it in quotes"),
        ("remote:\n  delete: 2\n", "invoke.yaml:2: delete: 2 is neither true nor false"),
        ("remote:\n  keep_runs: true\n", "invoke.yaml:2: keep_runs: True is not a whole number above 0"),
        ("remote:\n  exclude: {a: b}\n", "invoke.yaml:2: exclude: {'a': 'b'} is neither a list nor words"),
        ("remote:\n  hosts: [a]\n", "invoke.yaml:2: hosts: ['a'] is not a mapping of hosts and groups"),
        ("remote:\n  hosts:\n    a:\n      venv: x\n", "invoke.yaml:4: venv: unknown key\n  next: the"),
        ("remote:\n  host: a\n  hosts:\n    a:\n      delete: 2\n", "invoke.yaml:5: delete: 2 is neither"),
        ("remote:\n  host: \"a\\nb\"\n", "invoke.yaml:2: host: 'a\\nb' holds a control character"),
    ],
)  # fmt: skip
def test_a_wrong_invoke_yaml_is_named_with_its_line(root: Path, text: str, expected: str) -> None:
    (root / "invoke.yaml").write_text(text)
    assert expected in failure(root, config={})


def test_a_wrong_variable_is_named(root: Path) -> None:
    assert "INVOKE_REMOTE_HSOT: unknown key\n  next: the nearest known key is INVOKE_REMOTE_HOST" in failure(
        root, environ={"INVOKE_REMOTE_HSOT": "a"}
    )
    assert "INVOKE_REMOTE_DELETE: '' is neither true nor false" in failure(
        root, environ={"INVOKE_REMOTE_DELETE": ""}
    )


def test_a_file_that_cannot_be_read_is_named(root: Path) -> None:
    (root / ".remote_config").mkdir()
    assert f"{root}/.remote_config: Is a directory" in failure(root)
    (root / ".remote_config").rmdir()
    (root / ".remote_config").write_bytes(b"REMOTE_HOST=a\nREMOTE_PYTHON=\xff\n")
    assert f"{root}/.remote_config:2: not UTF-8" in failure(root)
    (root / ".remote_config").unlink()
    assert f"{root}/nope.yaml: No such file or directory" in failure(
        root, config=invoke_config(root, runtime=root / "nope.yaml")
    )


def test_a_missing_host_names_the_ways_to_set_one(root: Path) -> None:
    assert (
        "settings: no host is set\n"
        "  next: REMOTE_HOST=... in .remote_config, or `host:` under `remote:` in invoke.yaml, "
        "or --host NAME; to try it without a host of your own: inv demo"
    ) == failure(root, required=("host", "code_path"))
    (root / ".remote_config.template").touch()
    (root / "inv").touch()
    assert (
        "settings: no host is set\n"
        "  next: REMOTE_HOST=... in .remote_config (cp .remote_config.template .remote_config), "
        "or `host:` under `remote:` in invoke.yaml, "
        "or --host NAME; to try it without a host of your own: ./inv demo"
    ) == failure(root, required=("host", "code_path"))
    message = failure(root, flags={"host": "trn1"}, required=("host", "code_path"))
    assert message.startswith("settings: no code_path is set for trn1\n  next: REMOTE_CODE_PATH=... in ")


HOSTS = """\
remote:
  host: trn1
  code_path: ~/shared
  hosts:
    trn1: {code_path: ~/one, exclude: "*.neff"}
    trn2:
      venv_path: ~/venv
    spare:
    fleet: [trn1, trn2]
    all: fleet spare
"""


def test_a_host_has_settings_of_its_own(root: Path) -> None:
    (root / "invoke.yaml").write_text(HOSTS)
    one = look(root)
    assert ("~/one", "invoke.yaml:5") == value_at(one, "code_path")
    assert (*ALWAYS_EXCLUDED, "*.neff") == one.exclude
    two = at_host(one, "trn2")
    assert (("trn2", "--hosts"), ("~/shared", "invoke.yaml:3")) == (
        value_at(two, "host"),
        value_at(two, "code_path"),
    )
    assert ("~/venv", "invoke.yaml:7") == value_at(two, "venv_path")
    assert one.code_path == at_host(two, "trn1").code_path


def test_a_hosts_own_settings_stand_over_files_and_under_flags(root: Path) -> None:
    (root / "invoke.yaml").write_text(HOSTS)
    (root / ".remote_config").write_text("REMOTE_CODE_PATH=~/mine\n")
    assert ("~/one", "invoke.yaml:5") == value_at(look(root), "code_path")
    assert "~/mine" == look(root, flags={"host": "elsewhere"}).code_path
    assert "~/typed" == look(root, environ={"INVOKE_REMOTE_CODE_PATH": "~/typed"}).code_path


def test_groups_expand_to_their_hosts(root: Path) -> None:
    (root / "invoke.yaml").write_text(HOSTS)
    settings = look(root)
    assert ("trn1", "trn2", "spare") == expand(settings, ["all"])
    assert ("me@other", "trn1", "trn2") == expand(settings, ["me@other,trn1", "fleet"])
    assert (
        "trn1 trn2 spare fleet=trn1,trn2 all=fleet,spare"
        == {name: value for name, value, _ in rows(settings)}["hosts"]
    )


def test_each_place_may_name_more_hosts(root: Path, home: Path) -> None:
    (home / ".invoke.yaml").write_text("remote:\n  hosts:\n    mine: {python: p}\n    trn1: {python: p}\n")
    (root / "invoke.yaml").write_text(HOSTS)
    settings = look(root)
    assert ("mine", "trn1", "trn2", "spare", "fleet", "all") == tuple(settings.hosts)
    assert (None, "~/one") == (settings.python, settings.code_path)
    assert ("p", "~/.invoke.yaml:3") == value_at(at_host(settings, "mine"), "python")


def test_a_group_that_holds_itself_is_refused(root: Path) -> None:
    (root / "invoke.yaml").write_text("remote:\n  hosts:\n    a: [b]\n    b: [a]\n")
    with pytest.raises(ConfigError, match=r"invoke.yaml:2: hosts: a > b > a: a group inside itself"):
        expand(look(root), ["a"])


def test_a_group_is_no_host(root: Path) -> None:
    (root / "invoke.yaml").write_text(HOSTS)
    message = failure(root, flags={"host": "fleet"}, required=("host",))
    assert "settings: --host: fleet is a group of hosts" in message


def test_what_is_typed_starts_from_where_it_is_typed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "sub").mkdir()
    monkeypatch.chdir(root / "sub")
    assert root / "sub" / "out" == look(root, flags={"local_dir": "out"}).local_dir
    assert root / "out" == look(root, environ={"INVOKE_REMOTE_LOCAL_DIR": "out"}).local_dir


@pytest.mark.parametrize(
    ("typed", "refused"),
    [
        ("-av", None),
        ("-az --exclude='a b' --exclude .git -f '- *.o' --bwlimit 100 --rsync-path '/opt/r s'", None),
        ("--dry-run", "--dry-run: nothing would be transferred"),
        ("-avn", "-n: nothing would be transferred"),
        ("-e 'ssh -p 2'", "-e: ssh has its own setting"),
        ("-ave ssh", "-e: ssh has its own setting"),
        ("--rsh=ssh", "--rsh: ssh has its own setting"),
        ("--out-format=%n", "--out-format: we parse its output"),
        ("-aq", "-q: we parse its output"),
        ("--delete-after", "--delete-after: we delete only files that were pushed"),
        ("--files-from=-", "--files-from: we compose"),
        ("-a src", "'src' is not an option"),
        ("-a -- src", "'--' is not an option"),
        ("--exclude n -n", "-n: nothing"),
        ("--log-file=/x", "--log-file: it would write a file"),
        ("--log-file /x", "--log-file: it would write a file"),
        ("-a --write-batch=/x", "--write-batch: it would write a file"),
        ("--only-write-batch=/x", "--only-write-batch: it would write a file"),
        ("--log-fi=/x", "--log-fi: it would write a file"),
        ("--write=/x", "--write: it would write a file"),
        ("--rs=ssh", "--rs: ssh has its own setting"),
        ("--daemon --config=/x", "--daemon: we start rsync"),
        ("-M--log-file=/x", "-M: --log-file: it would write a file"),
        ("-M=--log-file=/x", "-M: --log-file: it would write a file"),
        ("-aM --write-batch=/x", "-M: --write-batch: it would write a file"),
        ("--remote-option=--log-file=/x", "--remote-option: --log-file: it would write a file"),
        ("-M x", "-M: 'x' is not an option"),
        ("-M--fake-super --partial --no-r --old-d --temp-dir=/x --delay-updates", None),
    ],
)
def test_rsync_options_that_break_the_transfer_are_refused_by_name(
    root: Path, typed: str, refused: str | None
) -> None:
    (root / ".remote_config").write_text(f'RSYNC_OPTIONS="{typed}"\n')
    if refused is None:
        look(root)
    else:
        assert f".remote_config:1: rsync_options: {refused}" in failure(root)


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        (["-o", "ConnectTimeout=10", "-p", "22", "-i", "/a b/key", "-vJ", "jump", "-oPort=2"], None),
        (["-N"], "-N: no command would run"),
        (["-vN"], "-N: no command would run"),
        (["-W", "a:1"], "-W: no command"),
        (["-t"], "-t: a terminal"),
        (["-o", "RequestTTY=yes"], "-oRequestTTY: a terminal"),
        (["-osessionType none"], "-oSessionType: no command"),
        (["-M"], "-M: we start and control the shared connection"),
        (["-O", "exit"], "-O: we start and control the shared connection"),
        (["trn1"], "'trn1' is not an option"),
        (["-p", "22", "ls"], "'ls' is not an option"),
    ],
)
def test_ssh_options_that_break_the_session_are_refused_by_name(
    root: Path, words: list[str], refused: str | None
) -> None:
    given = {"config": {"remote": {"ssh_options": words}}}
    if refused is None:
        assert tuple(words) == look(root, **given).ssh_options
    else:
        assert f"ns.configure: ssh_options: {refused}" in failure(root, **given)


def test_the_root_is_the_nearest_folder_that_says_so(tmp_path: Path) -> None:
    for mark in ("invoke.yaml", "tasks.py", "fabfile.py", ".remote_config"):
        folder = tmp_path / mark.strip(".")
        (folder / "a" / "b").mkdir(parents=True)
        (folder / mark).write_text("")
        assert folder == find_root(folder / "a" / "b")
    (tmp_path / "tasks.py" / "remote_tools").mkdir()
    (tmp_path / "tasks.py" / "remote_tools" / ".remote_config").write_text("")
    assert tmp_path / "tasks.py" == find_root(tmp_path / "tasks.py" / "remote_tools")


def test_what_invoke_would_end_in_a_traceback_for_is_said_first(root: Path) -> None:
    check_early(root, {"INVOKE_REMOTE_EXCLUDE": "a"})
    (root / "invoke.yaml").write_text("remote:\n  exclude: [a]\n  timeout_s: 5\n")
    check_early(root, {"INVOKE_REMOTE_HOST": "a"})
    with pytest.raises(ConfigError, match=r"INVOKE_REMOTE_EXCLUDE cannot override the list at invoke.yaml:2"):
        check_early(root, {"INVOKE_REMOTE_EXCLUDE": "a"})
    with pytest.raises(ConfigError, match="INVOKE_REMOTE_TIMEOUT_S: 'x' is not a number"):
        check_early(root, {"INVOKE_REMOTE_TIMEOUT_S": "x"})
    (root / "invoke.yaml").write_text("remote: {\n")
    with pytest.raises(ConfigError, match=r"invoke.yaml:2: "):
        check_early(root, {})


def test_the_settings_of_this_project_are_sound() -> None:
    settings = load({}, REPO, environ={}, required=())
    assert "~/.cache/autotune" == settings.cache_dir


def test_every_line_of_the_template_is_a_setting(root: Path) -> None:
    text = (REPO / ".remote_config.template").read_text()
    (root / ".remote_config").write_text(re.sub(r"^# (?=[A-Z_]+=)", "", text, flags=re.MULTILINE))
    settings = look(root)
    assert {"host", "code_path", "venv_path", "cache_dir", "local_dir", "rsync_options", "ssh_options"} == {
        name for name, source in settings.sources.items() if source.startswith(".remote_config")
    }


def test_the_reference_is_what_the_code_says() -> None:
    assert reference() == (REPO / "docs" / "settings.md").read_text()
