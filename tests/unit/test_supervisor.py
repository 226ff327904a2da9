"""The program that owns runs on the host, piece by piece; whole runs are in the integration tests."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from remote_tools.host import command, outputs, owner, processes, run_folder, supervisor
from remote_tools.host.frames import FILE, HEADER
from remote_tools.host.owner import Output
from remote_tools.host.run_folder import Run


def frames(path: Path) -> list[tuple[bytes, bytes]]:
    """Read a file of frames."""
    data, found = path.read_bytes(), []
    while data:
        kind, size = HEADER.unpack_from(data)
        found.append((kind, data[HEADER.size : HEADER.size + size]))
        data = data[HEADER.size + size :]
    return found


WHOLE = {
    **dict.fromkeys(("host", "user", "cwd", "cache_dir", "python"), ""),
    "id": "it",
    "state": "ended",
    "argv": [],
    "env": {},
    "pty": False,
    "started": 0.0,
}


def make_run(folder: Path, run_id: str, **record: Any) -> Run:
    """Make a run's folder with a record."""
    run = Run(str(folder), run_id)
    Path(run.folder).mkdir(parents=True)
    run_folder.write_json(run.record_path, {**WHOLE, "id": run_id, **record})
    return run


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", '{"id": "it"}', "[" * 5000, "9" * 5000, '{"id": 1, "state": []}',
        '{"id": "it", "state": "running", "owner": "x"}',
        *(json.dumps({**WHOLE, **odd}) for odd in (
            {"left": [1]}, {"left": [["1", "2", "3"]]}, {"ended": "x"}, {"pid": "1"}, {"started": 1e300},
            {"started": float("nan")}, {"output_bytes": None}, {"pty": 1}, {"exit": "0"},
        )),
    ],
)  # fmt: skip
def test_a_damaged_record_is_that_of_a_lost_run(tmp_path: Path, text: str) -> None:
    run = make_run(tmp_path, "it")
    Path(run.record_path).write_text(text)

    assert ("it", "lost") == (run.record()["id"], run.record()["state"])


@pytest.mark.parametrize("what", ["a pipe", "a folder", "a link", "a huge file", "another's"])
def test_what_is_no_record_is_not_read(tmp_path: Path, what: str) -> None:
    run = make_run(tmp_path, "it", id="other" if what == "another's" else "it")
    path = Path(run.record_path)
    if what != "another's":
        path.unlink()
    if what == "a pipe":
        os.mkfifo(path)
    elif what == "a folder":
        path.mkdir()
    elif what == "a link":
        path.symlink_to("/dev/zero")
    elif what == "a huge file":
        with path.open("wb") as file:
            file.truncate(1 << 40)

    assert ("it", "lost") == (run.record()["id"], run.record()["state"])


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_what_another_account_put_in_the_place_of_a_result_is_none(tmp_path: Path) -> None:
    """After the end of the run, where the list of its files is kept."""
    root, closed = tmp_path / "root", tmp_path / "root/closed"
    closed.mkdir(parents=True)
    (root / "linked").symlink_to(closed)
    names = ["mine", "theirs", "claimed", "closed/theirs", "linked/mine", "gone"]
    for name in ("mine", "theirs", "claimed", "closed/theirs", "closed/mine"):
        (root / name).write_text("x")
    for name in ("theirs", "claimed", "closed/theirs"):
        os.chown(root / name, 65534, 65534)
    run = make_run(tmp_path, "it")
    Path(run.claims_path).write_bytes(os.fsencode(root / "claimed"))
    listed = [(name, 1, 1) for name in names]
    found = []
    for mode in (0o755, 0o1777):
        root.chmod(mode)
        found.append([name for name, _, _ in outputs.still_ours(run, str(root), listed)])

    assert [names, ["mine", "claimed"]] == found


def test_the_state_that_an_earlier_version_left_open_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder, "_home", str(tmp_path))
    state = Path(run_folder.place_of(str(tmp_path / "code")).state)
    state.mkdir()
    state.chmod(0o775)

    run_folder.place_of(str(tmp_path / "code"))

    assert 0o700 == state.stat().st_mode & 0o7777


def test_a_run_that_is_removed_meanwhile_is_left_out(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, str(number)) for number in range(4)]
    found = []
    for run, _record in run_folder.all_records(str(tmp_path)):
        found.append(run.id)
        shutil.rmtree(runs[2].folder, ignore_errors=True)

    assert ["0", "1", "3"] == found
    assert ["1", "3"] == [run.id for run, _record in run_folder.all_records(str(tmp_path), newest=2)]


def test_output_holds_whole_frames_only_where_a_file_may_not_grow(tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands in for a full disk; the process of the test must not keep it."""
    program = (
        "import resource, signal, sys; from remote_tools.host.owner import Output\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))\n"
        "output = Output(sys.argv[1])\n"
        "for _ in range(3): output.write(b'O', b'x' * 400)\n"
        "print(output.size_bytes, output.fault)\n"
    )
    path = tmp_path / "output.frames"

    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True)

    assert "810 output after byte 810 was not recorded: File too large\n" == done.stdout
    assert [(b"O", b"x" * 400)] * 2 == frames(path)
    assert resource.RLIM_INFINITY == resource.getrlimit(resource.RLIMIT_FSIZE)[0]


def test_output_leaves_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "LEFT_BYTES", 1 << 62)
    monkeypatch.setattr(owner, "LOOK_EVERY_BYTES", 1000)
    monkeypatch.setattr(os, "fstatvfs", lambda _fd: os.statvfs_result((1, 4096, 100, 4, 4, 0, 0, 0, 0, 255)))
    output = Output(str(tmp_path / "output.frames"))

    for _ in range(3):
        output.write(b"O", b"x" * 600)

    assert "the disk is almost full" in output.fault
    assert (b"O", b"x" * 600) == frames(tmp_path / "output.frames")[0]


def test_frames_are_sent_whole(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    whole, half = HEADER.pack(b"O", 3) + b"abc", HEADER.pack(b"E", 9) + b"torn"
    path = tmp_path / "output.frames"
    path.write_bytes(whole + half)

    with path.open("rb") as file:
        reached = supervisor.send_frames(file.fileno(), 0, None)
        assert reached == supervisor.send_frames(file.fileno(), reached, None)

    assert (len(whole), whole) == (reached, capfdbinary.readouterr().out)


def test_a_record_takes_the_room_that_was_kept_for_it(tmp_path: Path) -> None:
    reserved, path = tmp_path / "ended.part", tmp_path / "run.json"
    reserved.write_bytes(b" " * run_folder.RECORD_BYTES)
    inode = reserved.stat().st_ino

    run_folder.write_reserved(str(reserved), str(path), {"exit": 3})

    assert {"exit": 3} == json.loads(path.read_text())
    assert (inode, run_folder.RECORD_BYTES, False) == (
        path.stat().st_ino,
        path.stat().st_size,
        reserved.exists(),
    )


def test_a_run_wrote_what_it_claimed_and_what_changed_since_its_mark(tmp_path: Path) -> None:
    root, state = tmp_path / "cache", tmp_path / "state"
    root.mkdir()
    for name in ("before", "claimed before"):
        (root / name).write_text(name)
    since_ns = outputs.mark(str(root), "mine")
    for name in ("after", "another's"):
        (root / name).write_text(name)
    record = {"cache_dir": str(root), "since_ns": since_ns, "started": time.time()}
    mine, other = make_run(state, "mine"), make_run(state, "other", started=0, cache_dir=str(root))
    Path(mine.claims_path).write_bytes(bytes(root / "claimed before") + b"\0")
    Path(other.claims_path).write_bytes(bytes(root / "another's") + b"\0")

    found = outputs.find_outputs(mine, str(state), record)

    assert [("after", 5), ("claimed before", 14)] == [entry[:2] for entry in found]
    assert ["after", "another's", "before", "claimed before"] == sorted(path.name for path in root.iterdir())


def test_the_oldest_runs_go_but_none_that_runs_or_left_something_running(tmp_path: Path) -> None:
    me = [os.getpid(), processes.born(os.getpid())]
    make_run(tmp_path, "1-running", state="running", owner=me, pid=os.getpgid(0))
    make_run(tmp_path, "2-left", left_running=True, pid=os.getpgid(0))
    for number in range(3, 8):
        make_run(tmp_path, f"{number}-ended")

    owner.prune(str(tmp_path), 2)

    kept = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert ["1-running", "2-left", "6-ended", "7-ended"] == kept


def test_a_run_whose_owner_is_gone_is_lost(tmp_path: Path) -> None:
    run = make_run(tmp_path, "orphan", state="running", owner=[os.getpid(), "another start"], pid=1 << 22)

    assert ("lost", False) == (run.record()["state"], run.record()["left_running"])


def test_a_group_of_processes_that_only_wait_to_be_reaped_is_gone() -> None:
    with subprocess.Popen(["true"], start_new_session=True) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

        assert not processes.group_alive(process.pid)


@pytest.mark.parametrize("string", ["-x", "echo 'a b'", ""])
def test_a_shell_string_is_never_taken_for_an_option(string: str) -> None:
    shell, flag, given = command.command_of({"shell": string, "argv": None})

    assert ("-c", string, False) == (flag, given.lstrip(), given.startswith("-"))
    assert Path(shell).is_absolute()


def test_python_means_the_interpreter_of_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    folder = command.python_folder(sys.executable)

    program = "import sys; print(sys.executable, sys.argv[1:])"
    done = subprocess.run([f"{folder}/python", "-c", program, "a b"], capture_output=True, text=True)
    assert f"{sys.executable} ['a b']\n" == done.stdout


@pytest.mark.parametrize(
    ("above", "spoil", "private"),
    [
        (0o755, lambda _place: None, True),
        (0o1777, lambda _place: None, True),
        (0o777, lambda _place: None, False),
        (0o1777, lambda place: place.mkdir(0o700), True),
        (0o1777, lambda place: place.mkdir(0o755), False),
        (0o1777, lambda place: place.symlink_to(place.parent.parent), False),
    ],
)
def test_python_is_not_put_where_others_can_replace_it(
    tmp_path: Path, above: int, spoil: Callable[[Path], None], private: bool
) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp").chmod(above)
    spoil(tmp_path / "tmp/ours")

    assert private == command.is_private(str(tmp_path / "tmp/ours"))


def test_small_files_are_sent_as_they_are_now(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    (tmp_path / "grown").write_bytes(b"longer")
    os.utime(tmp_path / "grown", ns=(7, 7))

    found = supervisor.send_files(
        str(tmp_path), [["gone", 1, 1], ["grown", 1, 1], ["large", 1 << 20, 1]], 100
    )

    payload = FILE.pack(7, 5) + b"grown" + b"longer"
    assert ([("grown", 6, 7), ["large", 1 << 20, 1]], False) == found
    assert HEADER.pack(b"F", len(payload)) + payload == capfdbinary.readouterr().out


def test_a_pipe_or_a_link_in_the_place_of_a_result_is_not_read(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/etc/passwd")

    found = supervisor.send_files(str(tmp_path), [("link", 1, 1), ("pipe", 1, 1)], 100)

    assert [("link", 1, 1)] == [entry for entry in found[0] if entry[0] == "link"]
    assert b"root" not in capfdbinary.readouterr().out


def test_a_file_that_has_grown_too_large_is_left_to_rsync(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    (tmp_path / "grown").write_bytes(b"x" * (supervisor.INLINE_FILE_BYTES + 1))

    found = supervisor.send_files(str(tmp_path), [["grown", 1, 1]], 100)

    assert (([["grown", 1, 1]], False), b"") == (found, capfdbinary.readouterr().out)


def test_a_process_with_the_pid_of_another_is_not_signalled() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        start = processes.born(process.pid)
        assert start is not None
        other = processes.signal_process(process.pid, str(int(start) - 1), signal.SIGTERM)
        still = process.poll() is None
        own = processes.signal_process(process.pid, start, signal.SIGTERM)
        process.wait()
    gone = processes.signal_process(process.pid, start, signal.SIGTERM)

    assert (False, True, True, False) == (other, still, own, gone)
