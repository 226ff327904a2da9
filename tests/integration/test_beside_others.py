"""On a host with other users: ours is closed to them, and what they could have changed is not used."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from remote_tools.host.messages import HelloReply
from tests.integration.conftest import Laptop
from tests.integration.program import Program

NOBODY = 65534
only_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")


def hello(home: Path, state_path: Path | None = None, **more: str) -> Any:
    """Start our program, and return its reply to a request."""
    program = Program(home, state_path, **more)
    asked = {"op": "hello", "code_path": "code", "offset": 0, "params": {}}
    reply = program.ask(json.dumps(asked).encode())
    program.end()
    return reply


def modes(top: Path) -> set[int]:
    """Return the bits that others have, of everything below a folder."""
    return {path.stat().st_mode & 0o077 for path in (top, *top.rglob("*"))}


def test_nothing_of_ours_is_for_others(tmp_path: Path) -> None:
    before = os.umask(0o000)
    try:
        hello(tmp_path)
    finally:
        os.umask(before)

    assert {0} == modes(tmp_path / ".cache")


def test_a_folder_of_ours_that_is_too_open_is_closed(tmp_path: Path) -> None:
    (tmp_path / ".cache/remote-tools").mkdir(parents=True)
    (tmp_path / ".cache/remote-tools").chmod(0o777)

    reply = hello(tmp_path)

    assert ("error" in reply, 0o700) == (
        False,
        stat.S_IMODE((tmp_path / ".cache/remote-tools").stat().st_mode),
    )


def leave(_host: Path) -> None:
    """Change nothing."""


def give_away(path: Path) -> None:
    """Give a file or folder to another account."""
    os.chown(path, NOBODY, NOBODY)


def link_to_itself(path: Path) -> None:
    """Put a link in the place of a file."""
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


@pytest.mark.parametrize(
    ("spoil", "again"),
    [
        (leave, False),
        (lambda host: host.chmod(0o777), True),
        (lambda host: host.parent.chmod(0o772), True),
        (lambda host: host.parent.chmod(0o1777), True),
        (lambda host: (host / "frames.py").chmod(0o666), True),
        (lambda host: link_to_itself(host / "frames.py"), True),
        pytest.param(lambda host: give_away(host), True, marks=only_root),
        pytest.param(lambda host: give_away(host / "frames.py"), True, marks=only_root),
        pytest.param(lambda host: give_away(host / "__pycache__"), True, marks=only_root),
    ],
)
def test_a_program_that_others_could_have_changed_is_sent_again(
    tmp_path: Path, spoil: Callable[[Path], None], again: bool
) -> None:
    program: HelloReply = hello(tmp_path)
    host = Path(program["program"]) / "host"
    inode = host.stat().st_ino
    spoil(host)

    reply = hello(tmp_path)

    assert (program, again, {0}) == (
        reply,
        inode != host.stat().st_ino,
        modes(tmp_path / ".cache/remote-tools"),
    )


@pytest.mark.parametrize("above", [".cache", "."])
def test_a_folder_above_that_others_can_write_to_is_an_error(tmp_path: Path, above: str) -> None:
    (tmp_path / ".cache").mkdir()
    (tmp_path / above).chmod(0o777)

    reply = hello(tmp_path)

    folder = str((tmp_path / above).resolve())
    assert ("permission", f"chmod go-w {folder}; or name another folder with state_path") == (
        reply["error"],
        reply["hint"],
    )
    (tmp_path / above).chmod(0o755)
    assert "error" not in hello(tmp_path)


def test_a_folder_that_all_share_is_not_for_our_state(tmp_path: Path) -> None:
    """In a sticky one too: others can make there what is not yet there, as the state of a workspace."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)

    replies = [hello(tmp_path, shared), hello(tmp_path, shared / "mine")]

    assert (["permission", None], 0o1777) == (
        [reply.get("error") for reply in replies],
        stat.S_IMODE(shared.stat().st_mode),
    )


def test_a_way_that_others_can_turn_elsewhere_is_an_error(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    (tmp_path / "state").mkdir()
    (shared / "link").symlink_to(tmp_path / "state")

    reply = hello(tmp_path, shared / "link")

    assert ("permission", True) == (reply["error"], f"others can write to {shared}" in reply["message"])


def test_a_temporary_folder_that_others_can_replace_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / ".cache").write_text("no folder")
    (tmp_path / "tmp").mkdir()
    found = []
    for mode in (0o777, 0o1777):
        (tmp_path / "tmp").chmod(mode)
        found.append(hello(tmp_path, TMPDIR=str(tmp_path / "tmp"))["program"].startswith(str(tmp_path)))

    assert [False, True] == found


def test_a_program_that_was_not_announced_is_not_executed(tmp_path: Path) -> None:
    program = Program(tmp_path)
    program.packed = program.packed[:-3] + b' "}'
    reply = program.ask(b"{}")

    assert ("protocol", (0, "")) == (reply["error"], program.end())
    assert [] == list(tmp_path.rglob("program-*"))


def test_a_folder_of_the_accounts_own_group_is_nobody_elses(tmp_path: Path) -> None:
    """As on systems that give each account a group of its own, and the umask 002."""
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache").chmod(0o775)

    assert "error" not in hello(tmp_path)


def test_what_is_pushed_is_closed_to_other_writers(laptop: Laptop) -> None:
    (laptop.host.home / ".bashrc").write_text("umask 000\n")
    for name, mode in (("small.py", 0o666), ("a/set.py", 0o4775)):
        laptop.write(name, "print('small')\n").chmod(mode)
    by_request = laptop.inv("dev", "--", "small.py")
    found = [seen(laptop.there, "small.py", "a/set.py", "a", ".")]
    laptop.write("large.py", "print('large')\n" * 20_000).chmod(0o777)
    laptop.write("b/c/set.py", "print('large')\n" * 20_000).chmod(0o2666)
    by_rsync = laptop.inv("sync")
    found.append(seen(laptop.there, "large.py", "b/c/set.py", "b/c", "b"))
    again = laptop.inv("sync")

    assert [["644", "755", "755", "755"], ["755", "644", "755", "755"]] == found, (
        by_request.stderr + by_rsync.stderr
    )
    assert (0, 0, 0, "up to date" in again.stderr) == (
        by_request.returncode,
        by_rsync.returncode,
        again.returncode,
        True,
    ), again.stderr


def seen(top: Path, *names: str) -> list[str]:
    """Return the modes of files, octal."""
    return [f"{stat.S_IMODE((top / name).stat().st_mode):o}" for name in names]


def test_a_mode_that_was_asked_for_is_given(laptop: Laptop) -> None:
    with (laptop.root / ".remote_config").open("a") as config:
        config.write("RSYNC_OPTIONS='--chmod=Fg+w'\n")
    laptop.write("small.py", "print('small')\n").chmod(0o644)

    done = [laptop.inv("sync") for _ in range(2)]

    assert ["664"] == seen(laptop.there, "small.py"), done[0].stderr
    assert "up to date" in done[1].stderr


def test_what_others_could_write_to_before_is_closed_by_the_next_push(laptop: Laptop) -> None:
    laptop.write("small.py", "print('small')\n")
    laptop.inv("sync")
    (laptop.there / "small.py").chmod(0o666)

    laptop.inv("sync")

    assert ["644"] == seen(laptop.there, "small.py")


def test_a_run_has_the_accounts_own_umask(laptop: Laptop) -> None:
    (laptop.host.home / ".bashrc").write_text("umask 027\n")
    laptop.write("script.py", "import os; print('%03o' % os.umask(0))\n")

    done = laptop.inv("dev", "--", "script.py")

    assert "027\n" == done.stdout, done.stderr


@only_root
def test_files_of_others_are_no_results(laptop: Laptop) -> None:
    """Of a run, and of the whole cache, in a folder that all can write to."""
    cache = laptop.host.home / "shared"
    (cache / "closed").mkdir(parents=True)
    cache.chmod(0o1777)
    with (laptop.root / ".remote_config").open("a") as config:
        config.write(f"REMOTE_CACHE_DIR={cache}\n")
    laptop.write(
        "script.py",
        "import os, pathlib\n"
        "cache = pathlib.Path(os.environ['AUTOTUNE_CACHE_DIR'])\n"
        "for name in ('mine', 'theirs', 'claimed', 'closed/theirs'):\n"
        "    (cache / name).write_text('x')\n"
        f"    os.chown(cache / name, 0 if name == 'mine' else {NOBODY}, 0)\n"
        "with open(os.environ['AUTOTUNE_OUTPUTS'], 'wb') as claims:\n"
        "    claims.write(bytes(cache / 'claimed') + b'\\0')\n",
    )

    done = laptop.inv("dev", "--auto-fetch", "--", "script.py")
    of_the_run = sorted(path.name for path in (laptop.root / "cache").rglob("*"))
    whole = laptop.inv("fetch", "--all")

    assert (0, ["claimed", "mine"]) == (done.returncode, of_the_run), done.stderr
    assert "3 files of other accounts" in whole.stderr, whole.stderr
