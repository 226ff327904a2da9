"""Whatever login shell the account on the host has: sshd hands it every command of ours, and of rsync's."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from remote_tools.runs.client import INLINE_BYTES
from remote_tools.settings.settings import Settings
from remote_tools.setup import sandbox as servers
from remote_tools.setup.sandbox import Sandbox
from remote_tools.ssh.connection import Connection
from remote_tools.ssh.link import Link
from remote_tools.ssh.master import Destination
from remote_tools.sync import push, rsync
from remote_tools.sync.open_host import OpenHost
from remote_tools.sync.plan import PushMode
from remote_tools.sync.progress import Display
from remote_tools.sync.workspace import scan
from tests import needs
from tests.integration.conftest import Laptop

WRITE = f"""\
import json, os, pathlib, sys
folder = pathlib.Path(os.environ["AUTOTUNE_CACHE_DIR"], "kernel", "8x8")
folder.mkdir(parents=True, exist_ok=True)
(folder / "small").write_bytes(b"x")
(folder / "it's big!").write_bytes(b"x" * {INLINE_BYTES + 1})
print(json.dumps([os.getcwd(), *sys.argv[1:]]))
"""
ODD = ["it's", 'a "b"', "$HOME ~ `id`", "!! !x", "a\nb", "\\", "{a,b} * ? [c]", "(%d) | & ; > x", "", "é"]
CODE_PATH = '~/it\'s "there" $HOME !x {a,b} (1) ; *'


SHELLS = ["sh", "bash", "dash", "zsh", "fish", "tcsh", "ksh"]


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=needs.skip_without(name)) for name in SHELLS]
)
def laptop(
    request: pytest.FixtureRequest,
    make_laptop: Callable[[Sandbox], Laptop],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Laptop]:
    """Give a project whose host runs commands by a login shell, as sshd itself does; three tests share it."""
    host = servers.up(tmp_path_factory.mktemp("host"))
    enter = host.root / "enter"
    enter.write_text(f"SHELL={needs.find(request.param)}\nexport SHELL\n{enter.read_text()}")
    made = make_laptop(host)
    made.env["INVOKE_REMOTE_CODE_PATH"] = CODE_PATH
    yield made
    servers.down(host.root)


def test_the_loop_goes_its_whole_way(laptop: Laptop) -> None:
    there = laptop.host.home / CODE_PATH.removeprefix("~/")
    laptop.write("write.py", WRITE)
    laptop.write("it's !x/$HOME", "1")

    ran = laptop.inv("dev", "--auto-fetch", "--", "write.py", *ODD)
    asked = laptop.inv("exec", "--", "python3", "write.py", *ODD)
    shutil.rmtree(laptop.root / "cache")
    fetched = laptop.inv("fetch")

    assert [0, 0, 0] == [each.returncode for each in (asked, ran, fetched)], [
        each.stderr for each in (asked, ran, fetched)
    ]
    assert "1" == (there / "it's !x/$HOME").read_text()
    assert [[str(there), *ODD]] * 2 == [json.loads(each.stdout) for each in (asked, ran)]
    brought = {path.name: path.stat().st_size for path in (laptop.root / "cache/kernel/8x8").iterdir()}
    assert {"small": 1, "it's big!": INLINE_BYTES + 1} == brought


def test_fabrics_connection_speaks_to_it_too(laptop: Laptop, tmp_path: Path) -> None:
    there = Connection(laptop.host.host_alias, ("-F", str(laptop.host.ssh_config)))
    try:
        said = there.run("printenv WORD", env={"WORD": "it's $HOME !x"}, hide=True, in_stream=False)
        there.put(io.BytesIO(b"it"), "it's !x")
        there.get("it's !x", str(tmp_path / "back"))
    finally:
        there.master.close()
    assert ("it's $HOME !x\n", "it") == (said.stdout, (tmp_path / "back").read_text())


def test_a_path_is_quoted_once_for_an_rsync_that_knows_no_protection(
    laptop: Laptop, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = rsync.Pair(rsync.local_version(), rsync.parse_version("rsync  version 2.6.9"))
    if not pair.local_has(3, 2, 4):
        pytest.skip("the rsync here is older than 3.2.4, and quotes nothing by itself")
    monkeypatch.setattr(rsync, "pair_with", lambda *_given: pair)
    there = laptop.host.home / CODE_PATH.removeprefix("~/")
    laptop.write("a", "1")
    link = Link(Destination(laptop.host.host_alias, ("-F", str(laptop.host.ssh_config))), str(there), print)
    try:
        settings = Settings(laptop.root, link.alias, str(there))
        host = OpenHost(settings, link, Display(io.StringIO()))
        push.finish(host, push.push(host, scan(laptop.root), PushMode()))
    finally:
        link.close()
        link.master.close()
    assert "1" == (there / "a").read_text()
