"""Own a run: start its command, record its output on disk, and record how it ended.

The owner is a daemon, so a run outlives the sessions; they read the files that the owner writes. It starts
the command in a session and process group of its own.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import struct
import termios
import time
from typing import TYPE_CHECKING

from .command import guarded, spawn
from .frames import CHUNK_BYTES, HEADER, PIPE_BYTES, STDERR, STDOUT, write_all
from .outputs import find_outputs, mark
from .processes import alive, born, group_alive, members, signal_process
from .run_folder import Run, all_records, note_left, read_json, remove_tree, write_json, write_reserved

if TYPE_CHECKING:
    from .messages import RunRecord, Spec

DRAIN_S = 0.5
"""After the command has ended: stop reading if its children print nothing for this long."""
DRAIN_ALL_S = 2.0
"""After the command has ended: stop reading after this time even if its children still print."""
REST_S = 3.0
"""How long what a run left may take to end before it is killed."""
PR_SET_CHILD_SUBREAPER = 36
"""The number of an option of prctl(2)."""
MIN_LEASE_S = 15.0
"""The shortest lease: three of the client's pings."""
LEFT_BYTES = 1024 * 1024 * 1024
"""Stop recording output if less than this, and less than a twentieth of the disk, is free."""
LOOK_EVERY_BYTES = 16 * 1024 * 1024
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Output:
    """The file with the command's output; a full disk ends the recording, not the run."""

    def __init__(self, path: str) -> None:
        """Create the file."""
        self._fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        self.size_bytes = 0
        self.fault = ""
        self._look_at_bytes = LOOK_EVERY_BYTES

    def write(self, kind: bytes, data: bytes) -> None:
        """Append one frame, or none of it."""
        if self.fault:
            return
        try:
            header = HEADER.pack(kind, len(data))
            taken = os.writev(self._fd, [header, data])
            if taken < len(header) + len(data):  # a disk that fills up takes a part, and fails the next write
                write_all(self._fd, (header + data)[taken:])
            self.size_bytes += len(header) + len(data)
            if self.size_bytes > self._look_at_bytes:
                self._leave_room()
        except OSError as error:
            if error.errno not in FULL:
                raise
            os.ftruncate(self._fd, self.size_bytes)
            self.fault = f"output after byte {self.size_bytes} was not recorded: {error.strerror}"

    def _leave_room(self) -> None:
        """Raise ENOSPC before the disk is full: a run that prints endlessly would fill it."""
        self._look_at_bytes = self.size_bytes + LOOK_EVERY_BYTES
        disk = os.fstatvfs(self._fd)
        if disk.f_bavail < min(disk.f_blocks // 20, LEFT_BYTES // disk.f_frsize):
            raise OSError(errno.ENOSPC, "the disk is almost full")


class Owner:
    """The process that a run belongs to, from its start to its end."""

    def __init__(self, run: Run, state: str, spec: Spec) -> None:
        """Take over a run whose folder was just created."""
        self.run, self.state, self.spec = run, state, spec
        self.record: RunRecord = read_json(run.record_path)
        self.root: str = self.record["cache_dir"]
        self.output = Output(run.output_path)
        self.readers: dict[int, bytes] = {}
        self.terminal: int | None = None
        self.input: int | None = None
        self.typed = bytearray()
        self.renewed = time.monotonic()
        self.lease_mtime = 0
        self.adopts = False

    def live(self) -> None:
        """Start the command, record its output, record its end."""
        self.wakeup, wakeup_writing = os.pipe()
        for fd in (self.wakeup, wakeup_writing):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wakeup_writing, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        self.record.update({"started": time.time(), "since_ns": mark(self.root, self.run.id)})
        self.adopts = adopt_orphans()
        pid = self._start()
        if pid is None:
            return self._end(127, None)
        self.record.update({"state": "running", "pid": pid, "process": [pid, born(pid)]})
        write_reserved(self.run.reserved[0], self.run.record_path, self.record)
        status = self._record_output(pid)
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
        return self._end(code, None if code is not None else os.WTERMSIG(status))

    def _start(self) -> int | None:
        """Start the command; return None, with the reason on its stderr, if it cannot be executed."""
        env = {**os.environ, **self.record["env"]}
        env.pop("PYTHONHOME", None)
        argv = self.record["argv"]
        device_for = self.spec["device_for"]
        if device_for:
            argv = guarded(argv, self.run.id, device_for)
        streams = self._streams()
        try:
            return spawn(argv, self.record["cwd"], env, streams, self.spec["pty"])
        except OSError as error:
            self.output.write(
                STDERR, b"cannot execute %s: %s\n" % (os.fsencode(argv[0]), os.fsencode(error.strerror or ""))
            )
            return None
        finally:
            for fd in set(streams):
                os.close(fd)

    def _streams(self) -> tuple[int, int, int]:
        """Open the command's three streams and keep our ends."""
        if self.spec["pty"]:
            self.terminal, inner = os.openpty()
            os.set_blocking(self.terminal, False)
            resize(inner, self.spec["size"] or [24, 80])
            self.record["tty"] = os.ttyname(inner)
            self.readers[self.terminal] = STDOUT
            os.mkfifo(self.run.input_path, 0o600)
            self.input = os.open(self.run.input_path, os.O_RDWR | os.O_NONBLOCK)
            return inner, inner, inner
        ends = []
        for kind in (STDOUT, STDERR):
            reading, writing = os.pipe()
            fcntl.fcntl(reading, getattr(fcntl, "F_SETPIPE_SZ", 1031), PIPE_BYTES)
            self.readers[reading] = kind
            ends.append(writing)
        return os.open(os.devnull, os.O_RDONLY), ends[0], ends[1]

    def _record_output(self, pid: int) -> int:
        """Copy the command's output to disk until it has ended; return its wait status."""
        status = None
        while status is None:
            self._copy(1.0)  # SIGCHLD interrupts it
            status = self._reap(pid)
            if status is None:
                self._keep_lease()
        if self.record.get("lease_ended") or os.path.exists(self.run.ending_path):
            self._end_rest()
        give_up = time.monotonic() + DRAIN_ALL_S
        while self.readers and time.monotonic() < give_up and self._copy(DRAIN_S):
            pass
        return status

    def _reap(self, pid: int) -> int | None:
        """Reap the children that have ended, adopted ones too; return the command's wait status if it has."""
        status = None
        while True:
            try:
                ended, code = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return status
            if ended == 0:
                return status
            if ended == pid:
                status = code

    def _has_left(self) -> bool:
        """Return whether processes of the run are left; without children of ours /proc need not be read."""
        self._reap(0)
        if self.adopts:
            try:
                os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return False
        return bool(members(self.record))

    def _end_rest(self) -> None:
        """End what the command left, as the command itself was asked to: SIGTERM, then SIGKILL."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            until = time.monotonic() + REST_S
            if not self._has_left():
                return
            self._signal_all(number)
            while self._has_left() and time.monotonic() < until:
                self._copy(0.05)
                if number == signal.SIGKILL:
                    self._signal_all(number)

    def _signal_all(self, number: int) -> None:
        """Send a signal to every process of the run."""
        for pid, start in members(self.record):
            signal_process(pid, start, number)

    def _copy(self, timeout_s: float) -> bool:
        """Copy the available output, waiting at most `timeout_s` for it; return whether there was any."""
        reading = [self.wakeup, *self.readers]
        typed_by = self.input  # none from the moment that the terminal is gone
        if typed_by is not None and not self.typed:
            reading.append(typed_by)
        writing = [self.terminal] if self.typed and self.terminal is not None else []
        readable, writable, _ = select.select(reading, writing, [], timeout_s)
        for fd in readable:
            if fd == typed_by:
                self.typed += os.read(fd, CHUNK_BYTES)
            elif fd == self.wakeup:
                os.read(fd, CHUNK_BYTES)
            else:
                self._take(fd)
        if writable and self.terminal is not None:
            self._type(self.terminal)
        return bool(readable)

    def _take(self, fd: int) -> None:
        """Record the available output of one of the command's streams."""
        try:
            data = os.read(fd, PIPE_BYTES - HEADER.size)  # `send_frames` reads a complete frame at once
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EIO:  # on Linux: nobody has the terminal's other end open
                raise
            data = b""
        if data:
            self.output.write(self.readers[fd], data)
            return
        del self.readers[fd]
        if fd == self.terminal:
            self.input = None
            self.typed.clear()

    def _type(self, terminal: int) -> None:
        """Write the typed input to the command's terminal, as much as it accepts now."""
        try:
            del self.typed[: os.write(terminal, self.typed)]
        except BlockingIOError:
            return
        except OSError:  # nobody has the other end open
            self.typed.clear()

    def _keep_lease(self) -> None:
        """End the run if its lease has expired: SIGTERM, and SIGKILL 10 s later."""
        if self.spec["on_disconnect"] != "kill":
            return
        try:
            mtime = os.stat(self.run.lease_path).st_mtime_ns
        except OSError:
            mtime = 0
        if mtime != self.lease_mtime:
            self.lease_mtime, self.renewed = mtime, time.monotonic()
        silent_s = time.monotonic() - self.renewed
        lease_s = max(float(self.spec["lease_s"]), MIN_LEASE_S)
        if silent_s > lease_s and not self.record.get("lease_ended"):
            self.record["lease_ended"] = True
            self._signal_all(signal.SIGTERM)
        elif silent_s > lease_s + 10:
            self._signal_all(signal.SIGKILL)

    def _end(self, code: int | None, signal_number: int | None) -> None:
        """Record how the run ended and what it wrote; keep recording the output of its children."""
        self.record.update(
            {
                "state": "ended",
                "exit": code if signal_number is None else 128 + signal_number,
                "signal": signal_number,
                "ended": time.time(),
                "output_bytes": self.output.size_bytes,
                "fault": self.output.fault,
                "left_running": False,
            }
        )
        if self._has_left():
            note_left(self.record)
        try:
            outputs = find_outputs(self.run, self.state, self.record)
            write_json(self.run.outputs_path, outputs)
            self.record.update({"files": len(outputs), "files_bytes": sum(entry[1] for entry in outputs)})
        except OSError as error:
            self.record["fault"] = self.record["fault"] or f"its results could not be listed: {error}"
        write_reserved(self.run.reserved[1], self.run.record_path, self.record)
        prune(self.state, self.spec["keep_runs"])
        while self.readers:
            self._copy(60.0)


def prune(state: str, keep: int) -> None:
    """Remove the oldest runs beyond `keep`, except runs that have not ended or left processes running."""
    records = list(all_records(state))
    for run, record in records[: max(0, len(records) - keep)]:
        if record["state"] in ("ended", "lost") and not still_left(record):
            remove_tree(run.folder)


def still_left(record: RunRecord) -> bool:
    """Return whether what a run left behind still runs; an older record has the group only."""
    if "left" in record:
        return any(alive([pid, start]) for pid, start, _words in record["left"])
    return bool(record.get("left_running")) and group_alive(record["pid"])


def adopt_orphans() -> bool:
    """Have the kernel make us the parent of the run's orphans (prctl(2)); return False if it cannot."""
    try:
        import ctypes

        return int(ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)) == 0
    except (ImportError, OSError, AttributeError):
        return False


def resize(fd: int, size: list[int]) -> None:
    """Set a terminal's [rows, columns]; the kernel sends SIGWINCH to the foreground program."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", size[0], size[1], 0, 0))


def become_owner(part: Run, run: Run, record: RunRecord, state: str, spec: Spec) -> None:
    """Fork the owner off as a daemon: no terminal, no parent, none of the session's streams.

    Raises:
        OSError: the run's folder could not be created.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        os.waitpid(child, 0)
        with os.fdopen(reading, "rb") as file:
            failure = file.read()  # EOF once the run's folder exists, or could not be created
        if failure:
            raise OSError(int(failure), os.strerror(int(failure)), run.folder)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    try:
        record["owner"] = [os.getpid(), born(os.getpid())]
        write_json(part.record_path, record)
        os.rename(part.folder, run.folder)
    except OSError as error:
        if not os.path.isdir(run.folder):  # otherwise another session has started the same run
            os.write(writing, b"%d" % (error.errno or errno.EIO))
        os._exit(0)
    try:
        null = os.open(os.devnull, os.O_RDWR)
        log = os.path.join(run.folder, "supervisor.log")
        streams = [null, os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)]
        for number, fd in ((0, streams[0]), (1, streams[1]), (2, streams[1])):
            os.dup2(fd, number)
        os.closerange(3, 64)
        for name in ("SIGHUP", "SIGINT", "SIGPIPE", "SIGXFSZ"):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
        Owner(run, state, spec).live()
    except BaseException:  # noqa: BLE001  # a bug of ours: a daemon has no caller to raise it to
        import traceback

        traceback.print_exc()
        os._exit(70)
    os._exit(0)
