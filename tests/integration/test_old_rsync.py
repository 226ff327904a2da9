"""An rsync that is older than this machine's, on either end: REMOTE_TEST_OLD_RSYNC names the program."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from remote_tools.runs.client import INLINE_BYTES
from remote_tools.setup.sandbox import Sandbox
from remote_tools.sync import push, rsync
from tests.integration.conftest import Laptop, SandboxMaker

OLD_RSYNC = os.environ.get("REMOTE_TEST_OLD_RSYNC", "")
WRITE = f"""\
import os, pathlib
folder = pathlib.Path(os.environ["AUTOTUNE_CACHE_DIR"], "kernel", "8x8")
folder.mkdir(parents=True, exist_ok=True)
(folder / "small").write_bytes(b"x")
(folder / "it's big").write_bytes(b"x" * {INLINE_BYTES + 1})
print("ran")
"""

pytestmark = pytest.mark.skipif(not OLD_RSYNC, reason="REMOTE_TEST_OLD_RSYNC does not name an rsync")


def versions(there: Path) -> set[rsync.Version]:
    """Read what the host's program found out about the rsync there."""
    return {
        rsync.parse_version(json.loads(path.read_text())["says"])
        for path in there.glob(".cache/remote-tools/*/rsync-version")
    }


@pytest.fixture
def old_rsync_on(
    make_laptop: Callable[[Sandbox], Laptop], make_sandbox: SandboxMaker, tmp_path: Path
) -> Callable[[set[str]], Laptop]:
    """Make a project and a host with the old rsync first in the PATH of either end, or of both."""
    (tmp_path / "rsync").symlink_to(OLD_RSYNC)

    def make(ends: set[str]) -> Laptop:
        host = make_sandbox()
        made = make_laptop(host)
        if "here" in ends:
            made.env["PATH"] = f"{tmp_path}:{made.env['PATH']}"
        if "there" in ends:
            enter = host.root / "enter"
            enter.write_text(f"PATH='{tmp_path}':$PATH\nexport PATH\n{enter.read_text()}")
        made.env["INVOKE_REMOTE_CODE_PATH"] = "~/it's there"
        return made

    return make


def held(folder: Path) -> dict[str, bytes]:
    """Read a folder but for what is never sent."""
    files = (path for path in folder.rglob("*") if path.is_file() and ".remote" not in str(path))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if "cache" not in path.parts}


@pytest.mark.parametrize("ends", [{"here"}, {"there"}, {"here", "there"}], ids=["here", "there", "both"])
def test_the_loop_goes_its_whole_way(ends: set[str], old_rsync_on: Callable[[set[str]], Laptop]) -> None:
    laptop = old_rsync_on(ends)
    there = laptop.host.home / "it's there"
    laptop.write("write.py", WRITE)
    for i in range(push.MANY_FILES):
        laptop.write(f"pack age/{i % 7}/{i}", str(i))
    laptop.write("pack age/large", "x" * 3_000_000)
    (laptop.root / "link").symlink_to("pack age/1")

    first = laptop.inv("sync")
    shutil.rmtree(laptop.root / "pack age/3")
    laptop.write("pack age/1/1", "changed")
    (there / "pack age/2/2").write_text("changed there")
    laptop.write("pack age/2/2", "changed here too")
    second = laptop.inv("sync", "--force")
    ran = laptop.inv("dev", "--auto-fetch", "--", "write.py")

    assert [0, 0, 0] == [each.returncode for each in (first, second, ran)], (first, second, ran)
    kept = list(there.glob("pack age/2/2.remote-*"))
    assert ["changed there"] == [path.read_text() for path in kept]
    kept[0].unlink()
    assert held(laptop.root) == held(there)
    fetched = {path.name: path.stat().st_size for path in (laptop.root / "cache/kernel/8x8").iterdir()}
    assert {"small": 1, "it's big": INLINE_BYTES + 1} == fetched
    said = subprocess.run([OLD_RSYNC, "--version"], capture_output=True, text=True).stdout
    old = rsync.parse_version(said)
    assert {old if "there" in ends else rsync.local_version()} == versions(laptop.host.home)
