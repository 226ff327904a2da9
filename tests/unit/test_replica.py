"""The host's side of a sync, by itself, under the oldest Python that it supports where there is one."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from remote_tools.host import accounts, listing, replica
from remote_tools.host.listing import pack, same, same_content, unpack
from remote_tools.host.tree import DISPLACED, Tree

PYTHONS = sorted({sys.executable, *map(str, Path.home().glob(".pyenv/versions/3.8.*/bin/python"))})


def ask(python: str, state: Path, op: str, **params: Any) -> dict[str, Any]:
    """Ask the host's side one thing, in a process of its own, as a new session would be."""
    code = (
        "import json, sys; from host import replica; from host.run_folder import Place; "
        "op, params, state = json.load(sys.stdin); code_path = state + '/code'; "
        "print(json.dumps(replica.OPS[op](params, Place(code_path, code_path, state))))"
    )
    asked = {"client": "me", "name": "me@here", "dry": False, "rsync": "rsync", "more": False, **params}
    env = {"PYTHONPATH": str(Path(replica.__file__).parents[1])}
    said = subprocess.check_output(
        [python, "-c", code], input=json.dumps([op, asked, str(state)]), env=env, text=True
    )
    reply: dict[str, Any] = json.loads(said)
    return reply


NOTHING: dict[str, Any] = {
    **{name: pack([]) for name in ("records", "vanished", "absent", "delete", "kept", "sent", "folders")},
    "contents": {},
    "aside": "one",
}


@pytest.mark.parametrize("python", PYTHONS)
def test_a_push_from_its_beginning_to_its_end(python: str, tmp_path: Path) -> None:
    file = tmp_path / "code" / "d" / "a\n\\"
    record = listing.file_record(b"d/a\n\\", Path(__file__).stat())
    plan = ask(python, tmp_path, "sync.begin", stamp="1", listing=pack([record]))
    assert [b"d/a\n\\"] == unpack(plan["new"])
    file.parent.mkdir()
    shutil.copy2(__file__, file)
    end = ask(python, tmp_path, "sync.finish", stamp="1", date="now", altering=False, **NOTHING)
    assert {"removed": pack([]), "kept": [], "beside": [], "differs": []} == end
    assert "1" == (tmp_path / "stamp").read_text()
    plan = ask(python, tmp_path, "sync.begin", stamp="2", base="1", changed=pack([]), gone=pack([b"d/a\n\\"]))
    assert ([b"d/a\n\\"], False) == (unpack(plan["delete"]), (tmp_path / "stamp").exists())
    end = ask(
        python, tmp_path, "sync.finish",
        stamp="2", date="now", altering=False, **{**NOTHING, "delete": plan["delete"]},
    )  # fmt: skip
    assert ([b"d/a\n\\"], []) == (unpack(end["removed"]), list((tmp_path / "code").iterdir()))


def test_what_several_cut_pushes_left_is_known_as_pushed(tmp_path: Path) -> None:
    def pushed(number: int, aside: str) -> bytes:
        """Announce a version of a file, and overwrite the one before as rsync does."""
        file, waits = tmp_path / "code" / "a", tmp_path / "code" / ".remote-displaced" / aside / "a"
        source = tmp_path / f"version {number}"
        source.write_text("x" * number)
        record = listing.file_record(b"a", source.stat())
        ask(sys.executable, tmp_path, "sync.begin", stamp=str(number), listing=pack([record]))
        waits.parent.mkdir(parents=True)
        if file.exists():
            file.rename(waits)
        shutil.copy2(source, file)
        return record

    for number in (1, 2, 3):
        pushed(number, str(number))
    end = ask(sys.executable, tmp_path, "sync.finish", stamp="3", date="now", altering=False, **NOTHING)
    assert ([], ["a"]) == (end["beside"], [path.name for path in (tmp_path / "code").iterdir()])


def test_what_comes_along_twice_is_there_once_and_what_it_replaced_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "code" / "a"
    file.parent.mkdir()
    file.write_text("the host's own")
    record = b"f640 3 1700000000123456789 a"
    ask(sys.executable, tmp_path, "sync.begin", stamp="1", listing=pack([record]))
    tree, aside = Tree(str(tmp_path / "code").encode()), DISPLACED + b"/one"
    replica.deliver(tree, record, b"new", aside)  # and the connection is lost
    params = {
        **NOTHING,
        "contents": {"a": base64.b64encode(b"new").decode()},
        "altering": False,
        "date": "now",
    }
    end = ask(sys.executable, tmp_path, "sync.finish", stamp="1", **params)
    again = ask(sys.executable, tmp_path, "sync.finish", stamp="1", **params)
    held = {path.name: path.read_text() for path in file.parent.iterdir()}
    assert {"a": "new", "a.remote-now": "the host's own"} == held
    assert ([["a", "a.remote-now"]], [], record) == (end["beside"], again["beside"], tree.record(b"a"))


def test_a_base_that_the_host_does_not_know_is_asked_for_in_full(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    reply = ask(sys.executable, tmp_path, "sync.begin", stamp="2", base="1", changed=pack([]), gone=pack([]))
    assert {"want_listing": True} == reply


def test_what_did_not_arrive_leaves_the_path_without_a_stamp(tmp_path: Path) -> None:
    record = listing.file_record(b"a", Path(__file__).stat())
    ask(sys.executable, tmp_path, "sync.begin", stamp="1", listing=pack([record]))
    end = ask(sys.executable, tmp_path, "sync.finish", stamp="1", date="now", altering=False, **NOTHING)
    assert (["a"], False) == (end["differs"], (tmp_path / "stamp").exists())


def test_a_second_push_waits_for_the_first_and_then_says_who_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "LOCK_PATIENCE_S", 0.1)
    assert accounts.hold(str(tmp_path))
    code = (
        "import sys; from host import accounts; "
        "accounts.LOCK_PATIENCE_S = 0.1; sys.exit(accounts.hold(sys.argv[1]))"
    )
    env = {"PYTHONPATH": str(Path(replica.__file__).parents[1])}
    command = [sys.executable, "-c", code, str(tmp_path)]
    assert 0 == subprocess.run(command, env=env, check=False).returncode
    accounts.release()
    assert 1 == subprocess.run(command, env=env, check=False).returncode


def test_records_are_compared_as_coarsely_as_a_file_system_keeps_times() -> None:
    fine = b"f644 3 1700000001123456789 a"
    coarse = [
        b"f644 3 1700000001123456700 a",
        b"f644 3 1700000001000000000 a",
        b"f644 3 1700000000000000000 a",
    ]
    other = [b"f644 3 1700000001123456788 a", b"f644 4 1700000001123456789 a", b"l0 0 0 a//b", b"f644 3 1 a"]
    assert [True] * 3 == [same(fine, record) for record in coarse]
    assert [False] * 4 == [same(fine, record) for record in other]
    assert (False, True) == (
        same(fine, fine.replace(b"644", b"600")),
        same_content(fine, fine.replace(b"644", b"600")),
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another account")
def test_a_file_of_another_account_gives_way_as_it_does_for_rsync(tmp_path: Path) -> None:
    """Linux allows nobody but its owner a link to a file that others cannot write (protected_hardlinks)."""
    tree, theirs = tmp_path / "tree", tmp_path / "tree" / "a.py"
    tree.mkdir()
    theirs.write_text("old")
    os.chown(tree, 1234, 1234)
    code = (
        "import os, sys; from host import replica; from host.tree import Tree\n"
        "root = os.fsencode(sys.argv[1])\n"
        "replica.deliver(Tree(root), b'f644 3 1000000000 a.py', b'new', b'.remote-displaced/x')\n"
    )
    python = shutil.which("python3", path=os.defpath)
    assert python is not None
    shutil.copytree(Path(replica.__file__).parent, tmp_path / "host")
    for folder in (tmp_path, *tmp_path.parents):  # pytest keeps them to their owner
        if folder == Path(tempfile.gettempdir()):
            break
        folder.chmod(0o755)

    done = subprocess.run(
        [python, "-c", code, str(tree)],
        env={"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        user=1234,
        group=1234,
        extra_groups=[],
        capture_output=True,
        text=True,
    )

    assert (0, "") == (done.returncode, done.stderr)
    assert ("new", "old") == (theirs.read_text(), (tree / ".remote-displaced/x/a.py").read_text())


def test_only_a_plain_file_has_a_digest(tmp_path: Path) -> None:
    """What a link leads to is not for the other side; a pipe and a device never end."""
    (tmp_path / "file").write_text("it")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")

    found = [
        listing.digest_of(os.fsencode(path)) for path in (tmp_path / "link", tmp_path / "pipe", "/dev/zero")
    ]

    assert ["", "", ""] == found
    assert hashlib.sha256(b"it").hexdigest() == listing.digest_of(bytes(tmp_path / "file"))
