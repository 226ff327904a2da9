"""Own the runs of a workspace: the program that answers a session on the host.

It is sent over the session itself, kept on the host under its digest, and needs nothing there but Linux
and Python >= 3.8. A session is one process, started by sshd, that answers framed requests on its standard
streams. A run belongs to another process, its owner, which is nobody's child: it starts the command in a
session and process group of its own, writes what the command prints to disk, and records how it ended.
Sessions come and go; they read the files that the owner writes.

On disk, below `~/.cache/remote-tools/<workspace>/`:

    stamp                     digest of the tree that was pushed last, absent while a push is under way
    runs/<id>/run.json        the record; replaced whole, never edited
    runs/<id>/output.frames   what the command printed, as the very frames that a client is sent
    runs/<id>/claims          files that the run named as its own, NUL-terminated ($AUTOTUNE_OUTPUTS)
    runs/<id>/outputs.json    files that the run wrote below the cache root: [path, size, mtime_ns]

A frame is one byte of kind, four of length (big-endian), and the payload:

    to the host    Q request (JSON)  S sources (JSON)  K signal number  I input  W "rows cols"  P ping
    from the host  R reply (JSON)  O stdout  E stderr  F file (mtime_ns, length of path, path, data)  P pong
                   N need S

`output.frames` holds O and E frames only, so a client that lost its connection comes back with the number of
bytes that it has consumed, and goes on there.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pwd
import select
import signal
import struct
import sys
import termios
import time
import zlib
from typing import Any, Callable, Dict, Iterator, NoReturn, Sequence, cast

MAGIC = b"\0remote-tools 1\n"
"""Sent first, so that what shell start-up files print before it can be told from us."""

HEADER = struct.Struct(">cI")
FILE = struct.Struct(">qI")
CHUNK_BYTES = 64 * 1024
PIPE_BYTES = 1024 * 1024
IDLE_S = 0.005
"""How long a session waits before it looks at a run's files again; `QUIET_S` for one that is long quiet."""
QUIET_S = 0.1
DRAIN_S = 0.5
"""Once the command has ended: how long a child that keeps its output open may be silent before it is left."""
DRAIN_ALL_S = 2.0
"""The same for a child that is not silent."""
DEAF_S = 15.0
"""Without a sign of life for this long, an attached client counts as gone; three of its pings."""
ORPHAN_S = 120
"""A session that hears nothing of its client for this long ends: a lost network closes no connection here."""
RECORD_BYTES = 16 * 1024
"""Room that is taken for a run's record before it starts."""
LEFT_BYTES = 1024 * 1024 * 1024
"""Output is recorded while this much, or a twentieth, of the disk is left for others."""
LOOK_EVERY_BYTES = 16 * 1024 * 1024
INLINE_FILE_BYTES = 256 * 1024
"""Results up to this size are sent in the run's own session, where they are not too many."""
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

Record = Dict[str, Any]


class Refusal(Exception):
    """A request that cannot be carried out; becomes an error reply.

    Args:
        kind: which of the client's errors it is (`unavailable`, `permission`, `usage`, `io`, `data`).
        message: what failed and where.
        hint: what to do next.
    """

    def __init__(self, kind: str, message: str, hint: str = "") -> None:
        """Keep the three apart: the client words the rest."""
        super().__init__(message)
        self.kind, self.message, self.hint = kind, message, hint


# The wire ---------------------------------------------------------------------------------------------------


def write_all(fd: int, data: bytes) -> None:
    """Write every byte: os.write may take less."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def send(kind: bytes, payload: bytes) -> None:
    """Send one frame to the client."""
    write_all(1, HEADER.pack(kind, len(payload)) + payload)


def send_json(kind: bytes, message: Any) -> None:
    """Send one frame of JSON; ASCII, so that names that are no UTF-8 survive as lone surrogates."""
    send(kind, json.dumps(message).encode("ascii"))


class Inbox:
    """Frames from the client, as they arrive on standard input."""

    def __init__(self, early: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """Start with the frames that arrived before this program did."""
        self._buffer = bytearray().join(HEADER.pack(kind, len(data)) + data for kind, data in early)

    def take(self) -> tuple[bytes, bytes] | None:
        """Return the next whole frame, or None."""
        if len(self._buffer) < HEADER.size:
            return None
        kind, length = HEADER.unpack_from(self._buffer)
        end = HEADER.size + length
        if len(self._buffer) < end:
            return None
        payload = bytes(self._buffer[HEADER.size : end])
        del self._buffer[:end]
        return kind, payload

    def wait(self, timeout_s: float | None) -> None:
        """Wait for bytes; end the session where the client is gone."""
        if not select.select([0], [], [], timeout_s)[0]:
            return
        data = os.read(0, CHUNK_BYTES)
        if not data:
            os._exit(0)
        self._buffer += data

    def frames(self) -> Iterator[tuple[bytes, bytes]]:
        """Take the whole frames that have arrived."""
        frame = self.take()
        while frame is not None:
            yield frame
            frame = self.take()

    def receive(self) -> tuple[bytes, bytes]:
        """Wait for one whole frame."""
        while True:
            frame = self.take()
            if frame is not None:
                return frame
            self.wait(None)


# Records ----------------------------------------------------------------------------------------------------


def write_json(path: str, message: Any) -> None:
    """Replace a JSON file whole: a reader sees the old or the new one."""
    part = f"{path}.{os.getpid()}.part"
    with open(part, "w", encoding="ascii") as file:
        json.dump(message, file)
    os.replace(part, path)


def write_reserved(reserved: str, path: str, message: Any) -> None:
    """Replace a JSON file by one whose room was taken before, so that a full disk cannot refuse it."""
    with open(reserved, "r+b") as file:
        file.write(json.dumps(message).encode("ascii").ljust(RECORD_BYTES))
    os.replace(reserved, path)


def remove_tree(folder: str) -> None:
    """Remove a folder; what cannot be removed stays."""
    import shutil  # a tenth of a session's start

    shutil.rmtree(folder, ignore_errors=True)


def read_json(path: str) -> Any:
    """Read a JSON file."""
    with open(path, encoding="ascii") as file:
        return json.load(file)


def state_folder(code_path: str) -> str:
    """Return where the state of the workspace at `code_path` lies: one place for all who push there."""
    real = os.path.realpath(os.path.expanduser(code_path))
    name = "{}-{:08x}".format(os.path.basename(real) or "root", name_sum(real))
    return os.path.join(os.path.expanduser("~/.cache/remote-tools"), name)


def name_sum(path: str) -> int:
    """Return 32 bits that tell paths of one user apart; hashlib would be a quarter of a session's start."""
    return zlib.crc32(os.fsencode(path))


def status_of(pid: int) -> list[bytes]:
    """Return proc(5)'s `stat` from the state on; nothing for a process that has ended, reaped or not."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return []
    return [] if fields[0] in (b"Z", b"X") else fields


def born(pid: int) -> str | None:
    """Return when a process started, in kernel ticks: with its pid that names it for ever; None if gone."""
    fields = status_of(pid)
    return fields[19].decode("ascii") if fields else None


def alive(process: list[Any] | None) -> bool:
    """Tell whether the process of a `[pid, start]` pair still runs."""
    return process is not None and born(process[0]) == process[1]


def group_alive(pgid: int) -> bool:
    """Tell whether any process is left in a group; the kernel would count those that nobody waited for."""
    try:
        os.killpg(pgid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    group = b"%d" % pgid
    return any(status_of(int(name))[2:3] == [group] for name in os.listdir("/proc") if name.isdigit())


class Run:
    """The files of one run."""

    def __init__(self, state: str, run_id: str) -> None:
        """Name the files; nothing is read or made."""
        self.id = run_id
        self.folder = os.path.join(state, "runs", run_id)
        self.record_path = os.path.join(self.folder, "run.json")
        self.output_path = os.path.join(self.folder, "output.frames")
        self.claims_path = os.path.join(self.folder, "claims")
        self.outputs_path = os.path.join(self.folder, "outputs.json")
        self.lease_path = os.path.join(self.folder, "lease")
        self.input_path = os.path.join(self.folder, "input")
        self.reserved = [os.path.join(self.folder, name) for name in ("running.part", "ended.part")]

    def record(self) -> Record:
        """Read the record; a run whose owner is gone without an end is `lost`."""
        record: Record = read_json(self.record_path)
        if record["state"] in ("starting", "running") and not alive(record["owner"]):
            record = read_json(self.record_path)
            if record["state"] in ("starting", "running"):
                left = bool(record.get("pid")) and group_alive(record["pid"])
                record.update(state="lost", left_running=left)
        return record

    def outputs(self) -> list[list[Any]]:
        """Return the files that the run wrote; none before it has ended."""
        return read_json(self.outputs_path) if os.path.exists(self.outputs_path) else []


def all_runs(state: str) -> list[Run]:
    """Return the workspace's runs, oldest first."""
    folder = os.path.join(state, "runs")
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    names = [name for name in names if not name.endswith(".part")]
    return [run for run in (Run(state, name) for name in names) if os.path.exists(run.record_path)]


# What a run wrote -------------------------------------------------------------------------------------------


def mark(root: str, run_id: str) -> int | None:
    """Return a time, on the clock of the cache's own file system, that every later write there exceeds.

    A file system's clock need not agree with the host's (NFS) and moves in ticks, so the mark is made there
    and given back once the clock has gone past it. None where there is no root yet: all is new then.
    """
    path = os.path.join(root, ".remote-tools-mark-" + run_id)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    except OSError:
        return None if not os.path.isdir(root) else time.time_ns()
    try:
        first = now = os.stat(path).st_ctime_ns
        give_up = time.monotonic() + 3
        while now == first and time.monotonic() < give_up:
            time.sleep(0.001)
            os.chmod(path, 0o600)
            now = os.stat(path).st_ctime_ns
        return first
    finally:
        os.unlink(path)


def files_below(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield (path relative to it, lstat) of every regular file; what vanishes meanwhile is passed over."""
    folders = [""]
    while folders:
        below = folders.pop()
        try:
            entries = list(os.scandir(os.path.join(folder, below)))
        except OSError:
            continue
        for entry in entries:
            path = os.path.join(below, entry.name)
            try:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(path)
                elif entry.is_file(follow_symlinks=False):
                    yield path, entry.stat(follow_symlinks=False)
            except OSError:
                continue


def claimed(run: Run) -> set:  # type: ignore[type-arg]  # Python 3.8 has no set[str]
    """Return the paths that a run named as its own."""
    try:
        with open(run.claims_path, "rb") as file:
            return {os.fsdecode(path) for path in file.read().split(b"\0") if path}
    except OSError:
        return set()


def find_outputs(run: Run, state: str, record: Record) -> list[list[Any]]:
    """Return [path, size, mtime_ns] of what the run wrote below the cache root, paths relative to it.

    Those are the files that it claimed, and those that changed after the mark and that no other run of the
    same time claimed.
    """
    root, since_ns, started = record["cache_dir"], record["since_ns"], record["started"]
    mine = {os.path.relpath(os.path.realpath(path), root) for path in claimed(run)}
    others: set = set()  # type: ignore[type-arg]
    for other in all_runs(state):
        try:
            ended = read_json(other.record_path).get("ended")
        except FileNotFoundError:  # removed meanwhile
            continue
        if other.id != run.id and (ended or started) >= started:
            others |= {os.path.relpath(os.path.realpath(path), root) for path in claimed(other)}
    found = []
    for name, info in files_below(root):
        changed = since_ns is None or info.st_ctime_ns > since_ns
        if name in mine or (changed and name not in others and not name.startswith(".remote-tools-mark-")):
            found.append([name, info.st_size, info.st_mtime_ns])
    return sorted(found)


# The owner of a run -----------------------------------------------------------------------------------------


def environment(spec: Record, run: Run, code_path: str, root: str) -> dict[str, str]:
    """Return the variables that we set for the run.

    Raises:
        Refusal: the interpreter or virtual environment that the settings name is not there.
    """
    paths = [code_path, os.environ.get("PYTHONPATH", "")]
    added = {
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "PYTHONUNBUFFERED": "1",
        "AUTOTUNE_CACHE_DIR": root,
        "AUTOTUNE_OUTPUTS": run.claims_path,
        "REMOTE_RUN_ID": run.id,
    }
    search = os.environ.get("PATH", os.defpath)
    venv = os.path.abspath(os.path.expanduser(spec["venv_path"])) if spec.get("venv_path") else ""
    if venv:
        if find_program("python", os.path.join(venv, "bin")) is None:
            hint = "inv provision makes one; or correct venv_path"
            message = "no virtual environment at {} on the host".format(spec["venv_path"])
            raise Refusal("unavailable", message, hint)
        added.update(VIRTUAL_ENV=venv, PATH=os.path.join(venv, "bin") + os.pathsep + search)
    elif spec.get("python"):
        python = find_program(os.path.expanduser(spec["python"]), search)
        if python is None:
            raise Refusal(
                "unavailable", "no {} on the host".format(spec["python"]), "correct python: inv config"
            )
        added["PATH"] = python_folder(python) + os.pathsep + search
    elif find_program("python", search) is None:
        added["PATH"] = search + os.pathsep + python_folder(find_program("python3", search) or sys.executable)
    if spec.get("term"):
        added["TERM"] = spec["term"]
    added.update(spec.get("env") or {})
    return added


def find_program(name: str, search: str) -> str | None:
    """Return the executable file that a name or path means; shutil.which would cost a session's start."""
    for folder in search.split(os.pathsep) if "/" not in name else [""]:
        path = os.path.join(folder, name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return os.path.abspath(path)
    return None


def python_folder(interpreter: str) -> str:
    """Return a folder for PATH in which `python` is this interpreter.

    A script and no link: an interpreter that is called by a link elsewhere does not find its environment.
    """
    name = f"python-{name_sum(interpreter):08x}"
    folder = os.path.join(os.path.expanduser("~/.cache/remote-tools"), name)
    path, part = os.path.join(folder, "python"), os.path.join(folder, str(os.getpid()))
    if not os.path.exists(path):
        os.makedirs(folder, mode=0o700, exist_ok=True)
        with open(part, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write("#!/bin/sh\nexec '{}' \"$@\"\n".format(interpreter.replace("'", "'\\''")))
        os.chmod(part, 0o700)
        os.replace(part, path)
    return folder


def command_of(spec: Record) -> list[str]:
    """Return the words to execute: a shell string goes to the login shell, as it would under ssh."""
    if spec.get("shell") is None:
        return list(spec["argv"])
    # A blank before it, since a shell would take a string that begins with - for an option.
    blank = " " if spec["shell"].startswith("-") else ""
    return [pwd.getpwuid(os.getuid()).pw_shell or "/bin/sh", "-c", blank + spec["shell"]]


def guarded(argv: list[str], run_id: str, device_for: str) -> list[str]:
    """Return the words that run a command once the host's accelerator is free."""
    import device_lock

    return cast("list[str]", device_lock.guarded(argv, {"run": run_id, "for": device_for}))


def spawn(argv: list[str], cwd: str, env: dict[str, str], streams: tuple[int, int, int], pty: bool) -> int:
    """Start the command as leader of its own session and process group; return its pid.

    Raises:
        OSError: the command could not be executed.
    """
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            for number, fd in enumerate(streams):
                os.dup2(fd, number)
            if pty:
                fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            for name in ("SIGPIPE", "SIGXFSZ", "SIGINT", "SIGHUP", "SIGCHLD"):
                signal.signal(getattr(signal, name), signal.SIG_DFL)
            os.chdir(cwd)
            os.closerange(3, tell)
            os.execvpe(argv[0], argv, env)
        except OSError as error:
            os.write(tell, b"%d" % (error.errno or errno.EIO))
        os._exit(127)
    os.close(tell)
    with os.fdopen(told, "rb") as file:
        failure = file.read()
    if failure:
        os.waitpid(pid, 0)
        raise OSError(int(failure), os.strerror(int(failure)), argv[0])
    return pid


class Output:
    """The file of what the command prints; a full disk is remembered, not fatal to the run."""

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
            if taken < len(header) + len(data):  # a disk that fills up takes a part of it, then says so
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
        """Stop before the disk is full: a run that prints without end and without a client would fill it."""
        self._look_at_bytes = self.size_bytes + LOOK_EVERY_BYTES
        disk = os.fstatvfs(self._fd)
        if disk.f_bavail < min(disk.f_blocks // 20, LEFT_BYTES // disk.f_frsize):
            raise OSError(errno.ENOSPC, "the disk is almost full")


class Owner:
    """The process that a run belongs to, from its start to its end."""

    def __init__(self, run: Run, state: str, spec: Record) -> None:
        """Take over a run whose folder was just made."""
        self.run, self.state, self.spec = run, state, spec
        self.record: Record = read_json(run.record_path)
        self.root: str = self.record["cache_dir"]
        self.output = Output(run.output_path)
        self.readers: dict[int, bytes] = {}
        self.terminal: int | None = None
        self.input: int | None = None
        self.typed = bytearray()
        self.heard = time.monotonic()
        self.lease_mtime = 0

    def live(self) -> None:
        """Start the command, record what it prints, record its end."""
        self.bell, ringing = os.pipe()
        for fd in (self.bell, ringing):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(ringing, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        self.record.update(started=time.time(), since_ns=mark(self.root, self.run.id))
        pid = self._start()
        if pid is None:
            return self._end(127, None)
        self.record.update(state="running", pid=pid, process=[pid, born(pid)])
        write_reserved(self.run.reserved[0], self.run.record_path, self.record)
        status = self._record_output(pid)
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
        return self._end(code, None if code is not None else os.WTERMSIG(status))

    def _start(self) -> int | None:
        """Start the command; None, with the reason on its stderr, where it cannot be executed."""
        env = {**os.environ, **self.record["env"]}
        env.pop("PYTHONHOME", None)
        argv = self.record["argv"]
        if self.spec.get("device_for"):
            argv = guarded(argv, self.run.id, self.spec["device_for"])
        streams = self._streams()
        try:
            return spawn(argv, self.record["cwd"], env, streams, bool(self.spec.get("pty")))
        except OSError as error:
            self.output.write(
                b"E", b"cannot execute %s: %s\n" % (os.fsencode(argv[0]), os.fsencode(error.strerror or ""))
            )
            return None
        finally:
            for fd in set(streams):
                os.close(fd)

    def _streams(self) -> tuple[int, int, int]:
        """Open the command's three streams and remember our ends."""
        if self.spec.get("pty"):
            self.terminal, inner = os.openpty()
            os.set_blocking(self.terminal, False)
            resize(inner, self.spec.get("size") or [24, 80])
            self.record["tty"] = os.ttyname(inner)
            self.readers[self.terminal] = b"O"
            os.mkfifo(self.run.input_path, 0o600)
            self.input = os.open(self.run.input_path, os.O_RDWR | os.O_NONBLOCK)
            return inner, inner, inner
        ends = []
        for kind in (b"O", b"E"):
            reading, writing = os.pipe()
            fcntl.fcntl(reading, getattr(fcntl, "F_SETPIPE_SZ", 1031), PIPE_BYTES)
            self.readers[reading] = kind
            ends.append(writing)
        return os.open(os.devnull, os.O_RDONLY), ends[0], ends[1]

    def _record_output(self, pid: int) -> int:
        """Copy what the command prints to disk until it has ended; return its wait status."""
        ended = 0
        while not ended:
            self._copy(1.0)  # its end wakes us: SIGCHLD
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended:
                self._keep_lease(pid)
        give_up = time.monotonic() + DRAIN_ALL_S
        while self.readers and time.monotonic() < give_up and self._copy(DRAIN_S):
            pass
        return status

    def _copy(self, timeout_s: float) -> bool:
        """Copy what is there, waiting at most `timeout_s` for it; tell whether there was anything."""
        reading = [self.bell, *self.readers]
        if self.input is not None and not self.typed:
            reading.append(self.input)
        writing = [self.terminal] if self.typed and self.terminal is not None else []
        readable, writable, _ = select.select(reading, writing, [], timeout_s)
        for fd in readable:
            if fd == self.input:
                self.typed += os.read(fd, CHUNK_BYTES)
            elif fd == self.bell:
                os.read(fd, CHUNK_BYTES)
            else:
                self._take(fd)
        if writable and self.terminal is not None:
            self._type(self.terminal)
        return bool(readable)

    def _take(self, fd: int) -> None:
        """Record what one of the command's streams holds."""
        try:
            data = os.read(fd, PIPE_BYTES - HEADER.size)  # `send_frames` reads a whole frame at once
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EIO:  # how Linux says that a terminal has no other end any more
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
        """Give the command's terminal what was typed, as much as it takes now."""
        try:
            del self.typed[: os.write(terminal, self.typed)]
        except BlockingIOError:
            return
        except OSError:  # it has no other end any more
            self.typed.clear()

    def _keep_lease(self, pid: int) -> None:
        """End the run where its client was to keep it alive and has not been heard of for too long."""
        if self.spec.get("on_disconnect") != "kill":
            return
        try:
            mtime = os.stat(self.run.lease_path).st_mtime_ns
        except OSError:
            mtime = 0
        if mtime != self.lease_mtime:
            self.lease_mtime, self.heard = mtime, time.monotonic()
        silent_s = time.monotonic() - self.heard
        lease_s = max(float(self.spec.get("lease_s") or 0), DEAF_S)
        if silent_s > lease_s and not self.record.get("lease_ended"):
            self.record["lease_ended"] = True
            os.killpg(pid, signal.SIGTERM)
        elif silent_s > lease_s + 10:
            os.killpg(pid, signal.SIGKILL)

    def _end(self, code: int | None, signal_number: int | None) -> None:
        """Record how the run ended, then what it wrote; keep recording what its children still print."""
        self.record.update(
            state="ended",
            exit=code if signal_number is None else 128 + signal_number,
            signal=signal_number,
            ended=time.time(),
            output_bytes=self.output.size_bytes,
            fault=self.output.fault,
            left_running=bool(self.record.get("pid")) and group_alive(self.record["pid"]),
        )
        try:
            outputs = find_outputs(self.run, self.state, self.record)
            write_json(self.run.outputs_path, outputs)
            self.record.update(files=len(outputs), files_bytes=sum(entry[1] for entry in outputs))
        except OSError as error:
            self.record["fault"] = self.record["fault"] or f"its results could not be listed: {error}"
        write_reserved(self.run.reserved[1], self.run.record_path, self.record)
        prune(self.state, int(self.spec["keep_runs"]))
        while self.readers:
            self._copy(60.0)


def prune(state: str, keep: int) -> None:
    """Remove the oldest runs beyond `keep`; never one that has not ended, or that left processes behind."""
    runs = all_runs(state)
    for run in runs[: max(0, len(runs) - keep)]:
        try:
            record = run.record()
        except FileNotFoundError:  # another run's owner was quicker
            continue
        left = record.get("left_running") and group_alive(record["pid"])
        if record["state"] in ("ended", "lost") and not left:
            remove_tree(run.folder)


def resize(fd: int, size: list[int]) -> None:
    """Set a terminal's [rows, columns]; the kernel tells the foreground program."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", size[0], size[1], 0, 0))


def become_owner(part: Run, run: Run, record: Record, state: str, spec: Record) -> None:
    """Fork the owner off: no terminal, no parent, none of the session's streams. Return in the session."""
    told, tell = os.pipe()
    child = os.fork()
    if child:
        os.close(tell)
        os.waitpid(child, 0)
        with os.fdopen(told, "rb") as file:
            failure = file.read()  # ends once the run is there, or cannot be
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
        if not os.path.isdir(run.folder):  # else another session was quicker with the same run
            os.write(tell, b"%d" % (error.errno or errno.EIO))
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
    except BaseException:  # noqa: BLE001  # a bug of ours: nobody is left to raise it to
        import traceback

        traceback.print_exc()
        os._exit(70)
    os._exit(0)


# Requests ---------------------------------------------------------------------------------------------------


def start(params: Record) -> Run:
    """Start a run, or find it where this very run was started before: asking twice starts it once."""
    state = state_folder(params["code_path"])
    run = Run(state, params["id"])
    code_path = os.path.realpath(os.path.expanduser(params["code_path"]))
    if os.path.isdir(run.folder):
        return run
    if not os.path.isdir(code_path):
        raise Refusal("unavailable", "no folder {} on the host".format(params["code_path"]), "inv sync")
    spec = params["spec"]
    root = os.path.realpath(os.path.expanduser(spec["cache_dir"]))
    record = {
        "id": run.id,
        "state": "starting",
        "host": os.uname().nodename,
        "user": pwd.getpwuid(os.getuid()).pw_name,
        "cwd": code_path,
        "cache_dir": root,
        "argv": command_of(spec),
        "env": environment(spec, run, code_path, root),
        "shell": spec.get("shell"),
        "pty": bool(spec.get("pty")),
        "python": sys.version.split()[0],
        "started": time.time(),
    }
    part = Run(state, f"{run.id}.{os.getpid()}.part")
    os.makedirs(part.folder, mode=0o700)
    try:
        for path in part.reserved:
            with open(path, "wb") as file:
                file.write(b" " * RECORD_BYTES)
        become_owner(part, run, record, state, spec)
    finally:
        if os.path.isdir(part.folder):
            remove_tree(part.folder)
    return run


def send_frames(fd: int, offset: int, limit: int | None) -> int:
    """Send the whole frames that follow `offset` in a run's output, 1 MB at most; return where they end."""
    data = os.pread(fd, PIPE_BYTES if limit is None else min(PIPE_BYTES, max(0, limit - offset)), offset)
    end = 0
    while len(data) - end >= HEADER.size:
        length = HEADER.size + HEADER.unpack_from(data, end)[1]
        if len(data) - end < length:
            break
        end += length
    write_all(1, memoryview(data)[:end])  # type: ignore[arg-type]
    return offset + end


def stream(run: Run, offset: int, inbox: Inbox, follow: bool = True) -> Record:
    """Send a run's output from `offset` on and pass on what the client does; return the record at its end."""
    while not os.path.exists(run.output_path) and alive(run.record()["owner"]):
        inbox.wait(IDLE_S)
    fd = os.open(run.output_path, os.O_RDONLY | os.O_CREAT, 0o600)
    seen: Any = None
    looked, rest_s = 0.0, IDLE_S
    signal.alarm(ORPHAN_S)
    try:
        while True:
            for frame in inbox.frames():
                signal.alarm(ORPHAN_S)
                pass_on(run, *frame)
            info = os.stat(run.record_path)
            if seen != (info.st_ino, info.st_mtime_ns) or time.monotonic() - looked > 1:
                seen, looked, record = (info.st_ino, info.st_mtime_ns), time.monotonic(), run.record()
            reached = send_frames(fd, offset, record.get("output_bytes"))
            if reached != offset:
                offset, rest_s = reached, IDLE_S
                inbox.wait(0)
            elif record["state"] in ("ended", "lost") or not follow:
                return record
            else:
                inbox.wait(rest_s)
                rest_s = min(rest_s * 1.05, QUIET_S)
    finally:
        signal.alarm(0)
        os.close(fd)


def pass_on(run: Run, kind: bytes, payload: bytes) -> None:
    """Give the run what its client sent: a signal, input, a new window size, a sign of life."""
    if kind == b"P":
        touch(run.lease_path)
        send(b"P", b"")
        return
    try:
        if kind == b"K":
            signal_run(run, int(payload))
        elif kind == b"I":
            put(run.input_path, payload)
        elif kind == b"W":
            fd = os.open(run.record()["tty"], os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
            try:
                resize(fd, [int(word) for word in payload.split()])
            finally:
                os.close(fd)
    except (OSError, KeyError):
        return  # the run has ended, or has no terminal: as with keys that are typed too late


def put(fifo: str, data: bytes) -> None:
    """Write to a pipe that is being read; what it does not take is lost, as with a terminal that is full."""
    fd = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def touch(path: str) -> None:
    """Renew a file's time, making the file where it is missing."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        os.utime(path)
    except OSError as error:
        if error.errno not in FULL:
            raise


def signal_run(run: Run, number: int) -> bool:
    """Send a signal to the run's whole process group; False where nothing of it is left."""
    record = run.record()
    while record["state"] == "starting":
        time.sleep(IDLE_S)
        record = run.record()
    pid = record.get("pid")
    # The group outlives its leader where children are left; a leader of that number may be another's by now.
    if pid is None or not group_alive(pid) or (born(pid) is not None and not alive(record["process"])):
        return False
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return False
    return True


def read_small(path: str, size: int) -> tuple[bytes, int]:
    """Return a file's content, or as much of it as is too much to be sent, and its mtime.

    With bare calls, as there may be many, and into a buffer of the size that it had when it was listed.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(fd, size + 1)
        if len(data) > size:  # it has grown
            data += os.read(fd, INLINE_FILE_BYTES)
        return data, os.fstat(fd).st_mtime_ns
    finally:
        os.close(fd)


def send_files(root: str, outputs: list[list[Any]], limit_bytes: int) -> tuple[list[list[Any]], bool]:
    """Send the small files themselves, unless they are too many.

    Returns:
        [path, size, mtime_ns] of all the files, as they are now; whether each was sent.
    """
    if sum(size for _, size, _ in outputs if size <= INLINE_FILE_BYTES) > limit_bytes:
        return outputs, not outputs
    found, all_sent = [], True
    frames, waiting_bytes = [], 0
    for entry in outputs:
        name, size, mtime_ns = entry
        data = None
        if size <= INLINE_FILE_BYTES:
            try:
                data, mtime_ns = read_small(os.path.join(root, name), size)
            except FileNotFoundError:  # it was removed after the run's end
                continue
            except OSError:
                data = None  # rsync says what is wrong with it
        if data is None or len(data) > INLINE_FILE_BYTES:
            found.append(entry)
            all_sent = False
            continue
        found.append([name, len(data), mtime_ns])
        path = os.fsencode(name)
        frames += [
            HEADER.pack(b"F", FILE.size + len(path) + len(data)),
            FILE.pack(mtime_ns, len(path)),
            path,
            data,
        ]
        waiting_bytes += len(data)
        if waiting_bytes > CHUNK_BYTES:
            write_all(1, b"".join(frames))
            frames, waiting_bytes = [], 0
    write_all(1, b"".join(frames))
    return found, all_sent


def end_reply(run: Run, state: str, record: Record, params: Record) -> Record:
    """Compose what a client is told of a run, with its files where it asked for them and they are small."""
    outputs = run.outputs()
    if record["state"] == "lost" and "since_ns" in record and not outputs:
        outputs = find_outputs(run, state, record)
    wanted = params.get("inline_bytes", 0) if record["state"] in ("ended", "lost") else 0
    return with_files({"run": record}, record["cache_dir"], outputs, {**params, "inline_bytes": wanted})


def with_files(reply: Record, root: str, outputs: list[list[Any]], params: Record) -> Record:
    """Send the small files, and complete a reply by all, with the rsync to fetch the others with."""
    if not params.get("inline_bytes"):
        return {**reply, "outputs": outputs, "rsync": None}
    found, all_sent = send_files(root, outputs, params["inline_bytes"])
    if all_sent:
        return {**reply, "outputs": found, "rsync": None}
    import replica

    store = replica.Store({"state": state_folder(params["code_path"]), "client": ""})
    return {**reply, "outputs": found, "rsync": replica.rsync_here(store, params.get("rsync") or "rsync")}


def op_run(params: Record, inbox: Inbox) -> Record:
    """Start a run where the pushed tree is the expected one, then stream it."""
    state = state_folder(params["code_path"])
    finished = None
    if params.get("finish") is not None:
        finished = beside("sync.finish")(located(params["finish"], params["code_path"]))
        if "error" in finished:
            return finished
    expected = params.get("stamp")
    if expected is not None and not os.path.isdir(os.path.join(state, "runs", params["id"])):
        try:
            with open(os.path.join(state, "stamp"), encoding="ascii") as file:
                held = file.read().strip()
        except OSError:
            held = ""
        if held != expected:
            return {"stale": True}
    run = start(params)
    touch(run.lease_path)
    send_json(b"R", {"started": run.id, "finish": finished})
    if params.get("detach"):
        return {"run": run.record(), "outputs": [], "rsync": None}
    return end_reply(run, state, stream(run, params.get("offset", 0), inbox), params)


def known_run(params: Record) -> Run:
    """Return the run that an id names.

    Raises:
        Refusal: there is none.
    """
    run = Run(state_folder(params["code_path"]), params["id"])
    if not os.path.exists(run.record_path):
        raise Refusal("usage", "no run {} on the host".format(params["id"]), "inv runs.list")
    return run


def op_attach(params: Record, inbox: Inbox) -> Record:
    """Stream a run that was started before, to its end or to what there is now."""
    run = known_run(params)
    send_json(b"R", {"started": run.id})
    record = stream(run, params.get("offset", 0), inbox, params.get("follow", True))
    return end_reply(run, state_folder(params["code_path"]), record, params)


def op_list(params: Record, _inbox: Inbox) -> Record:
    """Return every run's record, oldest first."""
    return {"runs": [run.record() for run in all_runs(state_folder(params["code_path"]))]}


def op_signal(params: Record, _inbox: Inbox) -> Record:
    """Send a signal to a run."""
    return {"delivered": signal_run(known_run(params), params["signal"])}


def op_outputs(params: Record, _inbox: Inbox) -> Record:
    """Return what a run wrote, with the files where they are small."""
    run = known_run(params)
    return end_reply(run, state_folder(params["code_path"]), run.record(), params)


def op_cache(params: Record, _inbox: Inbox) -> Record:
    """Return every file below the cache root, or one kernel's folder, and the files where they are small."""
    root = os.path.realpath(os.path.expanduser(params["cache_dir"]))
    below = os.path.join(root, params["kernel"]) if params.get("kernel") else root
    if not os.path.isdir(below):
        kernels = sorted(os.listdir(root)) if os.path.isdir(root) else []
        raise Refusal(
            "usage", f"no folder {below} on the host", "there are: %s" % (", ".join(kernels) or "none")
        )
    kernel = os.path.relpath(below, root)
    found = [
        [name if kernel == "." else os.path.join(kernel, name), info.st_size, info.st_mtime_ns]
        for name, info in files_below(below)
        if not os.path.basename(name).startswith(".remote-tools-mark-")
    ]
    found.sort()
    return with_files({"cache_dir": root}, root, found, params)


def beside(op: str) -> Callable[[Record], Record]:
    """Return what answers an op of this program's other files; each is loaded only where it is asked for."""
    if op.startswith("sync."):
        import replica

        return cast(Callable[[Record], Record], replica.OPS[op])
    import probe

    return cast(Callable[[Record], Record], probe.OPS[op])


def located(params: Record, code_path: str) -> Record:
    """Return a request with the places it is about."""
    real = os.path.realpath(os.path.expanduser(code_path))
    return {**params, "code_path": real, "state": state_folder(code_path)}


OPS: dict[str, Callable[[Record, Inbox], Record]] = {
    "hello": lambda _params, _inbox: {},
    "run": op_run,
    "attach": op_attach,
    "list": op_list,
    "signal": op_signal,
    "outputs": op_outputs,
    "cache": op_cache,
}


def answer(request: Record, inbox: Inbox) -> Record:
    """Carry out one request; a failure becomes an error reply."""
    op, params = request["op"], request["params"]
    try:
        if op in OPS:
            return OPS[op](params, inbox)
        return beside(op)(located(params, params["code_path"]))
    except Refusal as refusal:
        return {"error": refusal.kind, "message": refusal.message, "hint": refusal.hint}
    except OSError as error:
        denied = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        kind = "permission" if denied else "io"
        return {"error": kind, "message": f"{error} on the host", "hint": "inv doctor"}


def serve(early: Sequence[tuple[bytes, bytes]] = ()) -> NoReturn:
    """Answer requests until the client goes away; `early` are frames that were read before."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    inbox = Inbox(early)
    while True:
        kind, payload = inbox.receive()
        if kind == b"Q":
            send_json(b"R", answer(json.loads(payload), inbox))
        elif kind == b"P":
            send(b"P", b"")
