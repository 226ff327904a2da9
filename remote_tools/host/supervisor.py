"""Answer requests: the program on the host's end of a session.

The client sends it over the session, with the other files of this folder; the host keeps them under their
digest. It needs only Linux and Python >= 3.8. A session is one process, started by sshd, that answers framed
requests on its standard streams. Another process, the `owner`, owns a run.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pwd
import select
import signal
import struct
import sys
import time
from typing import TYPE_CHECKING, Any, Callable, Mapping, NoReturn, Sequence

from . import frames
from .command import Refusal, check_spec, command_of, environment
from .frames import CHUNK_BYTES, FILE, HEADER, PIPE_BYTES, Inbox, send, send_json, write_all
from .outputs import files_below, find_outputs, still_ours
from .owner import FULL, become_owner, resize
from .processes import alive, members, signal_process
from .run_folder import RECORD_BYTES, Place, Run, all_records, all_runs, is_run_id, place_of, remove_tree

if TYPE_CHECKING:
    from . import messages
    from .messages import (
        AttachParams,
        CacheParams,
        CacheReply,
        Entry,
        HelloReply,
        ListParams,
        ListReply,
        Nothing,
        OutputsParams,
        PushEnded,
        Refused,
        Request,
        ResultsWanted,
        RsyncHere,
        RunAnswer,
        RunParams,
        RunRecord,
        RunReply,
        SignalParams,
        SignalReply,
        Spec,
        Started,
    )

IDLE_S = 0.005
"""Polling interval of a run's files; it grows to `QUIET_S` while the run prints nothing."""
QUIET_S = 0.1
TYPED_BYTES = 64 * 1024 * 1024
"""Input that waits for a busy run, at most."""
ORPHAN_S = 120
"""A session ends after this time without a frame from its client: a lost network closes no connection."""
ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL, signal.SIGTERM)
"""Signals that ask a run to end."""
TO_ALL = (signal.SIGHUP, signal.SIGQUIT, signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP, signal.SIGCONT)
"""Signals for every process of a run, not only for the process group of its command."""
KILL_ROUNDS = 10
EX_PROTOCOL = 76
INLINE_FILE_BYTES = 256 * 1024
"""Results up to this size are sent in the run's own session if their total is small enough."""


def start(run_id: str, spec: Spec, place: Place) -> Run:
    """Start a run; return the existing one if its id was started before, so that a retry is safe."""
    run = Run(place.state, run_id)
    if os.path.isdir(run.folder):
        return run
    check_spec(spec)
    if not os.path.isdir(place.code_path):
        raise Refusal("unavailable", f"no folder {place.asked} on the host", "inv sync")
    root = os.path.realpath(os.path.expanduser(spec["cache_dir"]))
    record: RunRecord = {
        "id": run.id,
        "state": "starting",
        "host": os.uname().nodename,
        "user": pwd.getpwuid(os.getuid()).pw_name,
        "cwd": place.code_path,
        "cache_dir": root,
        "argv": command_of(spec),
        "env": environment(spec, run, place.code_path, root),
        "shell": spec["shell"],
        "pty": spec["pty"],
        "python": sys.version.split()[0],
        "started": time.time(),
    }
    part = Run(place.state, f"{run.id}.{os.getpid()}.part")
    os.makedirs(part.folder, mode=0o700)
    try:
        for path in part.reserved:
            with open(path, "wb") as file:
                file.write(b" " * RECORD_BYTES)
        become_owner(part, run, record, place.state, spec)
    finally:
        if os.path.isdir(part.folder):
            remove_tree(part.folder)
    return run


class Typed:
    """Input for a run's terminal that waits until the run reads it."""

    def __init__(self, run: Run) -> None:
        """Start without input."""
        self._run, self.waiting = run, bytearray()

    def add(self, data: bytes) -> None:
        """Add input; drop it if too much waits already."""
        if len(self.waiting) < TYPED_BYTES:
            self.waiting += data
            self.flush()

    def flush(self) -> None:
        """Pass as much as the run's owner accepts now."""
        if not self.waiting:
            return
        try:
            fd = os.open(self._run.input_path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            # A run that has just started has no pipe yet. Drop the input of one that has ended.
            if self._run.record()["state"] not in ("starting", "running"):
                self.waiting.clear()
            return
        try:
            del self.waiting[: os.write(fd, self.waiting)]
        except BlockingIOError:
            return
        finally:
            os.close(fd)


def write_patiently(data: memoryview, run: Run, inbox: Inbox, typed: Typed) -> None:
    """Write to the client; while it does not read, still take its signals, input and pings."""
    os.set_blocking(1, False)
    try:
        while data:
            try:
                data = data[os.write(1, data) :]
            except BlockingIOError:
                if select.select([0], [1], [], 1.0 if typed.waiting else None)[0]:
                    inbox.wait(0)
                for frame in inbox.frames():
                    signal.alarm(ORPHAN_S)
                    pass_on(run, typed, *frame)
                typed.flush()
    finally:
        os.set_blocking(1, True)


def write_at_once(data: memoryview) -> None:
    """Write to the client, and block until it has read."""
    write_all(1, data)  # type: ignore[arg-type]


def send_frames(
    fd: int, offset: int, limit: int | None, write: Callable[[memoryview], None] = write_at_once
) -> int:
    """Send the complete frames after `offset` in a run's output, at most 1 MiB; return their end."""
    data = os.pread(fd, PIPE_BYTES if limit is None else min(PIPE_BYTES, max(0, limit - offset)), offset)
    end = 0
    while len(data) - end >= HEADER.size:
        length = HEADER.size + HEADER.unpack_from(data, end)[1]
        if len(data) - end < length:
            break
        end += length
    write(memoryview(data)[:end])
    return offset + end


def stream(run: Run, offset: int, inbox: Inbox, follow: bool = True) -> RunRecord:
    """Send a run's output from `offset` on and pass the client's frames to it; return its last record."""
    while not os.path.exists(run.output_path) and alive(run.record().get("owner")):
        inbox.wait(IDLE_S)
    fd = os.open(run.output_path, os.O_RDONLY | os.O_CREAT, 0o600)
    seen: Any = None
    looked, rest_s = 0.0, IDLE_S
    signal.alarm(ORPHAN_S)
    typed = Typed(run)
    try:
        while True:
            for kind, payload in inbox.frames():
                signal.alarm(ORPHAN_S)
                pass_on(run, typed, kind, payload)
                if kind == frames.PING:
                    send(frames.PING, b"")
            typed.flush()
            info = os.stat(run.record_path)
            if seen != (info.st_ino, info.st_mtime_ns) or time.monotonic() - looked > 1:
                seen, looked, record = (info.st_ino, info.st_mtime_ns), time.monotonic(), run.record()
            reached = send_frames(
                fd, offset, record.get("output_bytes"), lambda data: write_patiently(data, run, inbox, typed)
            )
            if reached != offset:
                offset, rest_s = reached, IDLE_S
                inbox.wait(0)
            elif record["state"] in ("ended", "lost") or not follow:
                return record
            else:
                inbox.wait(IDLE_S if typed.waiting else rest_s)
                rest_s = min(rest_s * 1.05, QUIET_S)
    finally:
        signal.alarm(0)
        os.close(fd)


def pass_on(run: Run, typed: Typed, kind: bytes, payload: bytes) -> None:
    """Pass a client's frame to the run: a signal, input, a window size or a ping."""
    if kind == frames.PING:
        touch(run.lease_path)
        return
    try:
        if kind == frames.SIGNAL:
            signal_run(run, int(payload))
        elif kind == frames.INPUT:
            typed.add(payload)
        elif kind == frames.WINDOW:
            fd = os.open(run.record()["tty"], os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
            try:
                resize(fd, [int(word) for word in payload.split()])
            finally:
                os.close(fd)
    except (OSError, KeyError, ValueError, IndexError, OverflowError, struct.error):
        return  # the run has ended or has no terminal: drop the frame, as a terminal drops late keys


def touch(path: str) -> None:
    """Set a file's time to now; create the file if it is missing."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        os.utime(path)
    except OSError as error:
        if error.errno not in FULL:
            raise


def signal_run(run: Run, number: int) -> bool:
    """Send a signal to the run's processes; return False if none of them is left.

    A signal that ends or stops a run goes to all of its processes. Others go to the process group of its
    command, as Ctrl-C in a terminal does. The owner ends what a run leaves that was asked to end.
    """
    record = run.record()
    while record["state"] == "starting":
        time.sleep(IDLE_S)
        record = run.record()
    if record["state"] == "running" and number in ENDING:
        with contextlib.suppress(OSError), open(run.ending_path, "w", encoding="ascii") as file:
            file.write(str(number))
    leader = record.get("process")
    if leader is not None and alive(leader) and number not in TO_ALL:
        os.killpg(leader[0], number)
        return True
    return signal_all(record, number)


def signal_all(record: RunRecord, number: int) -> bool:
    """Send a signal to every process of a run; repeat SIGKILL while some are left: they may start more."""
    delivered = False
    for _ in range(KILL_ROUNDS if number == signal.SIGKILL else 1):
        left = members(record)
        for pid, start in left:
            delivered |= signal_process(pid, start, number)
        if not left:
            break
        if number == signal.SIGKILL:
            time.sleep(IDLE_S)
    return delivered


def read_small(path: str, size: int) -> tuple[bytes, int]:
    """Return a file's content and its mtime; stop reading once the content is too large to send.

    It makes bare system calls because there may be many files. `size` is the size when the file was listed.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)  # a link, a pipe by now
    try:
        data = os.read(fd, size + 1)
        if len(data) > size:  # it has grown
            data += os.read(fd, INLINE_FILE_BYTES)
        return data, os.fstat(fd).st_mtime_ns
    finally:
        os.close(fd)


def send_files(root: str, outputs: list[Entry], limit_bytes: int) -> tuple[list[Entry], bool]:
    """Send the content of the small files, unless their total exceeds `limit_bytes`.

    Returns:
        [path, size, mtime_ns] of all files, as they are now; whether all were sent.
    """
    if sum(size for _, size, _ in outputs if size <= INLINE_FILE_BYTES) > limit_bytes:
        return outputs, not outputs
    found, all_sent = [], True
    waiting, waiting_bytes = [], 0
    for entry in outputs:
        name, size, mtime_ns = entry
        data = None
        if size <= INLINE_FILE_BYTES:
            try:
                data, mtime_ns = read_small(os.path.join(root, name), size)
            except FileNotFoundError:  # removed after the run's end
                continue
            except OSError:
                data = None  # rsync will report the error
        if data is None or len(data) > INLINE_FILE_BYTES:
            found.append(entry)
            all_sent = False
            continue
        found.append((name, len(data), mtime_ns))
        path = os.fsencode(name)
        waiting += [
            HEADER.pack(frames.RESULT, FILE.size + len(path) + len(data)),
            FILE.pack(mtime_ns, len(path)),
            path,
            data,
        ]
        waiting_bytes += len(data)
        if waiting_bytes > CHUNK_BYTES:
            write_all(1, b"".join(waiting))
            waiting, waiting_bytes = [], 0
    write_all(1, b"".join(waiting))
    return found, all_sent


def end_reply(run: Run, state: str, record: RunRecord, wanted: ResultsWanted) -> RunReply:
    """Compose the reply about a run; if it has ended, send its small files if they are wanted."""
    outputs = run.outputs()
    if record["state"] != "ended" and "since_ns" in record and not outputs:
        outputs = find_outputs(run, state, record)  # of a running run: what it has written so far
    outputs = still_ours(run, record["cache_dir"], outputs)
    inline_bytes = wanted["inline_bytes"]
    outputs, rsync = send_results(record["cache_dir"], outputs, inline_bytes, wanted["rsync"], state)
    return {"run": record, "outputs": outputs, "rsync": rsync}


def send_results(
    root: str, outputs: list[Entry], inline_bytes: int, rsync: str, state: str
) -> tuple[list[Entry], RsyncHere | None]:
    """Send the small files.

    Returns:
        All files, and the rsync to fetch the others with; None if no others are wanted.
    """
    if not inline_bytes:
        return outputs, None
    found, all_sent = send_files(root, outputs, inline_bytes)
    if all_sent:
        return found, None
    from . import software

    return found, software.rsync_here(state, rsync)


def changed_here(place: Place) -> list[str]:
    """Return the pushed files that a run, or somebody on the host, has changed since."""
    from .accounts import Store, load
    from .tree import Tree

    holder = Store(place.state, "").holder()
    if holder is None:
        return []
    account = load(Store(place.state, holder["client"]).pushed_path)
    tree, expected = Tree(os.fsencode(place.code_path)), account.listing.keys() - account.absent
    return sorted(os.fsdecode(path) for path in expected if not account.holds(path, tree.record(path)))


def op_run(params: RunParams, place: Place, inbox: Inbox, offset: int) -> RunAnswer | Refused:
    """Start a run if the tree has the expected stamp, then stream it."""
    pushed: PushEnded | None = None
    changed: list[str] = []
    if not is_run_id(params["id"]):
        raise ValueError("no id of a run")
    if params["ending"] is not None:
        from . import replica

        pushed = replica.finish(params["ending"], place)
    expected = params["stamp"]
    if expected is not None and not os.path.isdir(os.path.join(place.state, "runs", params["id"])):
        try:
            with open(os.path.join(place.state, "stamp"), encoding="ascii") as file:
                held = file.read().strip()
        except OSError:
            held = ""
        if held != expected:
            return {"stale": True}
        changed = changed_here(place)
    run = start(params["id"], params["spec"], place)
    touch(run.lease_path)
    report_started(run, pushed, changed)
    if params["detach"]:
        return {"run": run.record(), "outputs": [], "rsync": None}
    return end_reply(run, place.state, stream(run, offset, inbox), params)


def report_started(run: Run, pushed: PushEnded | None, changed: list[str]) -> None:
    """Send `Started`, before the reply that ends the request."""
    started: Started = {"started": run.id, "pushed": pushed, "changed": changed}
    send_json(frames.REPLY, started)


def known_run(run_id: str, place: Place) -> Run:
    """Return the run with this id.

    Raises:
        Refusal: the host has no such run.
    """
    run = Run(place.state, run_id)
    if not is_run_id(run_id) or not os.path.exists(run.record_path):
        raise Refusal("usage", f"no run {run_id} on the host", "inv runs.list")
    return run


def op_attach(params: AttachParams, place: Place, inbox: Inbox, offset: int) -> RunReply:
    """Stream a run that was started earlier, until it ends or only the output so far."""
    run = known_run(params["id"], place)
    report_started(run, None, [])
    record = stream(run, offset, inbox, params["follow"])
    return end_reply(run, place.state, record, params)


def op_hello(_params: Nothing, place: Place) -> HelloReply:
    """Reply with the place of the program and of the state."""
    program = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return {"program": program, "python": sys.executable, "state": place.state}


def op_list(params: ListParams, place: Place) -> ListReply:
    """Return the newest runs' records, oldest first, and how many older ones there are."""
    newest = params["newest"]
    runs = [record for _run, record in all_records(place.state, newest)]
    older = len(all_runs(place.state)[:-newest]) if newest else 0
    return {"runs": runs, "older": older} if older else {"runs": runs}


def op_signal(params: SignalParams, place: Place) -> SignalReply:
    """Send a signal to a run."""
    return {"delivered": signal_run(known_run(params["id"], place), params["signal"])}


def op_outputs(params: OutputsParams, place: Place) -> RunReply:
    """Return the files that a run wrote; send the small ones."""
    run = known_run(params["id"], place)
    return end_reply(run, place.state, run.record(), params)


def op_cache(params: CacheParams, place: Place) -> CacheReply:
    """Return the files below the cache root, or below one kernel's folder; send the small ones."""
    root = os.path.realpath(os.path.expanduser(params["cache_dir"]))
    below = os.path.join(root, params["kernel"]) if params["kernel"] else root
    if not os.path.isdir(below):
        kernels = sorted(os.listdir(root)) if os.path.isdir(root) else []
        hint = f"choose one of: {', '.join(kernels)}" if kernels else "the cache is empty"
        raise Refusal("usage", f"no folder {below} on the host", hint)
    kernel = os.path.relpath(below, root)
    found: list[Entry] = []
    foreign = 0
    for name, info, ours in files_below(below):
        if not os.path.basename(name).startswith(".remote-tools-mark-"):
            foreign += not ours
            path = name if kernel == "." else os.path.join(kernel, name)
            found += [(path, info.st_size, info.st_mtime_ns)] if ours else []
    found.sort()
    outputs, rsync = send_results(root, found, params["inline_bytes"], params["rsync"], place.state)
    reply: CacheReply = {"cache_dir": root, "outputs": outputs, "rsync": rsync}
    if foreign:
        reply["foreign"] = foreign
    return reply


STREAMS: dict[str, Callable[[Any, Place, Inbox, int], Mapping[str, object]]] = {
    "run": op_run,
    "attach": op_attach,
}
OPS: dict[str, Callable[[Any, Place], Mapping[str, object]]] = {
    "hello": op_hello,
    "list": op_list,
    "signal": op_signal,
    "outputs": op_outputs,
    "cache": op_cache,
}
if TYPE_CHECKING:
    messages.HELLO.answered_by(op_hello)
    messages.RUN.answered_by(op_run)
    messages.ATTACH.answered_by(op_attach)
    messages.LIST.answered_by(op_list)
    messages.SIGNAL.answered_by(op_signal)
    messages.OUTPUTS.answered_by(op_outputs)
    messages.CACHE.answered_by(op_cache)


def function_for(op: str) -> Callable[[Any, Place], Mapping[str, object]]:
    """Return the function that answers an op without a stream; its module is imported only when needed."""
    if op in OPS:
        return OPS[op]
    if op.startswith("sync."):
        from . import replica

        return replica.OPS[op]
    from . import probe

    return probe.OPS[op]


WRONG = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    RecursionError,
    struct.error,
)
"""What a request that is not one of ours leads to, wherever it is looked at: a bad number, a missing key."""


def answer(payload: bytes, inbox: Inbox) -> Mapping[str, object]:
    """Carry out one request; turn a failure into an error reply."""
    try:
        request: Request = json.loads(payload)
        op, params = request["op"], request["params"]
        place = place_of(request["code_path"])
        if op in STREAMS:
            return STREAMS[op](params, place, inbox, request["offset"])
        return function_for(op)(params, place)
    except frames.Malformed:
        raise
    except WRONG as error:
        return refused("protocol", f"no request of ours: {where(error)}", "")
    except Refusal as refusal:
        return refused(refusal.kind, refusal.message, refusal.hint)
    except OSError as error:
        denied = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        return refused("permission" if denied else "io", f"{error} on the host", "inv doctor")


def where(error: BaseException) -> str:
    """Return an error with its place: it may be a bug of ours, and nobody else tells where."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    line = f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}" if trace else ""
    return f"{type(error).__name__}: {str(error)[:200]} ({line})"


def refused(kind: str, message: str, hint: str) -> Refused:
    """Return an error reply."""
    return {"error": kind, "message": message, "hint": hint}


def serve(early: Sequence[tuple[bytes, bytes]] = ()) -> NoReturn:
    """Answer requests until the client disconnects; `early` are frames that were read before."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    inbox = Inbox(early)
    try:
        while True:
            kind, payload = inbox.receive()
            if kind == frames.REQUEST:
                send_json(frames.REPLY, answer(payload, inbox))
            elif kind == frames.PING:
                send(frames.PING, b"")
    except frames.Malformed as error:
        send_json(frames.REPLY, refused("protocol", str(error), ""))
        os._exit(EX_PROTOCOL)
