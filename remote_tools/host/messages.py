"""Define the types of the messages between laptop and host, and of the records that they store.

Both ends annotate with these types, so mypy finds a misspelt key on either side. The tables of
docs/protocol.md are generated from them: `python -m remote_tools.ssh.protocol_page`. On the host they are
imported for type checking only: defining them takes longer than answering a request.

A `TypedDict` whose name ends with `Params` holds a request's parameters. `Packed` is a JSON string that holds
records or paths, see `listing.pack`. Paths are decoded by os.fsdecode. JSON has no tuples, so pairs and
triples arrive as lists. A type is `final` if an `in` test distinguishes it from another reply.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, List, NamedTuple, Tuple, TypedDict, TypeVar, Union, final

from . import frames

if TYPE_CHECKING:
    from typing import Callable, Concatenate  # Python 3.10, where mypy runs

Packed = str
Pair = Tuple[str, str]
Entry = Tuple[str, int, int]
"""A file that a run wrote: [path below the cache root, size in bytes, mtime in ns]."""
Process = List[Any]
"""A process: [pid, start time in kernel ticks]; see `processes.born`."""


class Nothing(TypedDict):
    """No keys at all."""


# A push -----------------------------------------------------------------------------------------------------


class Client(TypedDict):
    """The client of a push.

    Args:
        client: the checkout's random id.
        name: user and machine, for messages.
    """

    client: str
    name: str


class ComparisonParams(Client):
    """Parameters of every comparison of the two trees.

    Args:
        stamp: digest of the laptop's tree.
        dry: do not change the host's state.
        rsync: the name or path of the host's rsync.
        more: rsync compares contents too, so it may send more files than the host lists.
    """

    stamp: str
    dry: bool
    rsync: str
    more: bool


@final
class ListingParams(ComparisonParams):
    """A comparison with the whole tree.

    Args:
        listing: a record for each file.
    """

    listing: Packed


@final
class ChangesParams(ComparisonParams):
    """A comparison with the changes since an earlier push.

    Args:
        base: stamp of that push.
        changed: records of new and changed files.
        gone: paths of deleted files.
    """

    base: str
    changed: Packed
    gone: Packed


@final
class WantListing(TypedDict):
    """The host does not have the base.

    Args:
        want_listing: always true: repeat the request with the whole listing.
    """

    want_listing: bool


@final
class PlanReply(TypedDict):
    """The steps of a push.

    Args:
        new: paths that the host does not have.
        changed: paths that differ from the pushed files.
        conflict: [path, digest] of files that somebody else changed on the host; "" if the sizes differ.
        blocked: paths on the host in the way of a file: a folder, or a link in place of a folder.
        delete: paths that were pushed and are no longer listed.
        kept: [path, reason] of files that were pushed and are no longer listed, but stay.
        pushed: number of files from earlier pushes.
        root: the code path, absolute.
        rsync: the host's rsync.
        holder: the client that pushed to this code path last.
    """

    new: Packed
    changed: Packed
    conflict: list[Pair]
    blocked: Packed
    delete: Packed
    kept: list[Pair]
    pushed: int
    root: str
    rsync: RsyncHere
    holder: Holder | None


BeginParams = Union[ListingParams, ChangesParams]
BeginReply = Union[WantListing, PlanReply]


class ClearParams(Client):
    """Parameters of clearing the way for incoming files.

    Args:
        blocked: paths to move aside.
        delete: paths that may be deleted if they are below a blocked path.
        folders: paths to create; if two rsyncs create the same folder at the same time, one fails.
        date: the end of the names of kept files.
    """

    blocked: Packed
    delete: Packed
    folders: Packed
    date: str


class ClearReply(TypedDict):
    """Result of clearing the way.

    Args:
        removed: deleted paths.
        beside: [path, new name] of files and folders that were put aside.
    """

    removed: Packed
    beside: list[Pair]


class PushEnding(Client):
    """Parameters of the end of a push.

    Args:
        stamp: digest of the tree that was sent.
        date: the end of the names of kept files.
        records: new records of files that changed during the transfer.
        vanished: paths that were deleted during the transfer.
        absent: paths that were not passed to rsync.
        delete: paths that may be deleted.
        kept: paths that are no longer listed, but stay.
        sent: paths that were sent, in this request or by rsync.
        folders: empty folders to create.
        contents: base64 by path, of small files that are sent in this request instead of by rsync.
        aside: folder below `.remote-displaced` for the files that they replace.
        altering: rsync's options change the files that arrive.
    """

    stamp: str
    date: str
    records: Packed
    vanished: Packed
    absent: Packed
    delete: Packed
    kept: Packed
    sent: Packed
    folders: Packed
    contents: dict[str, str]
    aside: str
    altering: bool


class PushEnded(TypedDict):
    """Result of a push.

    Args:
        removed: deleted paths.
        kept: [path, reason] of files that were not deleted.
        beside: [path, new name] of files that the push overwrote and put aside.
        differs: paths whose files differ from what was sent.
    """

    removed: Packed
    kept: list[Pair]
    beside: list[Pair]
    differs: list[str]


# A run ------------------------------------------------------------------------------------------------------


class Spec(TypedDict):
    """The command to run on the host, and its options.

    Args:
        argv: the command and its arguments; null if `shell` is given.
        shell: a string for the login shell.
        cache_dir: the cache root.
        venv_path: the virtual environment.
        python: the interpreter called `python` if there is no venv_path; null leaves it to the host.
        pty: give the command a terminal.
        size: the terminal's [rows, columns].
        term: the terminal's TERM.
        on_disconnect: `keep` leaves the run alive without a client, `kill` ends it after `lease_s`.
        lease_s: how long the run lives without a client; 0 with `kill` ends it when the loss is noticed.
        keep_runs: how many ended runs the host keeps.
        device_for: the person for whom the accelerator is locked during the run; null takes no lock.
        env: additional variables.
    """

    argv: list[str] | None
    shell: str | None
    cache_dir: str
    venv_path: str | None
    python: str | None
    pty: bool
    size: list[int] | None
    term: str | None
    on_disconnect: str
    lease_s: float
    keep_runs: int
    device_for: str | None
    env: dict[str, str]


class ResultsWanted(TypedDict):
    """How the host sends results.

    Args:
        inline_bytes: send the small files before the reply if their total is at most this; 0 sends none.
        rsync: the program that transfers the other files.
    """

    inline_bytes: int
    rsync: str


class RunParams(ResultsWanted):
    """A run to start.

    Args:
        id: the run's id; a second start with the same id attaches to the first run.
        spec: the command and its options.
        stamp: the stamp that the tree must have; null if any tree will do.
        ending: a push to end first.
        detach: reply as soon as the run has started.
    """

    id: str
    spec: Spec
    stamp: str | None
    ending: PushEnding | None
    detach: bool


class AttachParams(ResultsWanted):
    """A run that was started earlier.

    Args:
        id: the run.
        follow: stream until the run ends, not only the output so far.
    """

    id: str
    follow: bool


class Started(TypedDict):
    """The run has started; sent before the reply that ends the request.

    Args:
        started: the run's id.
        pushed: result of the push that was ended first.
        changed: files that are no longer as they were pushed.
    """

    started: str
    pushed: PushEnded | None
    changed: list[str]


@final
class Stale(TypedDict):
    """The tree on the host does not have the expected stamp; nothing was started.

    Args:
        stale: always true: push, and repeat the request.
    """

    stale: bool


class RunBegun(TypedDict):
    """The keys that a run's record has from the start.

    Args:
        id: the run.
        state: `starting`, `running`, `ended`, or `lost`: its owner exited without recording an end.
        host: the host's node name.
        user: the account on the host.
        cwd: the code path, absolute.
        cache_dir: the cache root, absolute.
        argv: the command and its arguments, as executed.
        env: the variables that we set.
        shell: the string for the login shell, if one was given.
        pty: the command has a terminal.
        python: version of the Python that owns the run.
        started: start time in seconds since 1970.
    """

    id: str
    state: str
    host: str
    user: str
    cwd: str
    cache_dir: str
    argv: list[str]
    env: dict[str, str]
    shell: str | None
    pty: bool
    python: str
    started: float


class RunRecord(RunBegun, total=False):
    """A run's record, `run.json` on the host.

    Args:
        owner: the process that owns the run.
        since_ns: files below the cache root that changed later are the run's; null if there was no root.
        pid: pid of the command, and id of its process group.
        process: the command's process, unique even after its pid is reused.
        tty: the command's terminal.
        exit: the command's exit code, 128+n after a signal.
        signal: the signal that ended the command; null if it exited.
        ended: end time in seconds since 1970.
        output_bytes: size of the recorded output, as frames.
        fault: message about what could not be recorded; "" if all was.
        left_running: some of the run's processes outlived it.
        left: [pid, start time, command line] of these.
        lease_ended: the run was ended because it lost its client.
        files: number of files that the run wrote.
        files_bytes: total size of these files.
        unsure_files: number of files that a run of `beside` may have written; absent if there are none.
        beside: the runs that went on at the same time below the same cache root.
    """

    owner: Process
    since_ns: int | None
    pid: int
    process: Process
    tty: str
    exit: int | None
    signal: int | None
    ended: float
    output_bytes: int
    fault: str
    left_running: bool
    left: list[tuple[int, str, str]]
    lease_ended: bool
    files: int
    files_bytes: int
    unsure_files: int
    beside: list[str]


class Files(TypedDict):
    """Files below the cache root; small ones were sent before this reply.

    Args:
        outputs: [path, size in bytes, mtime in ns] of each.
        rsync: the host's rsync; null if it has no files to transfer.
    """

    outputs: list[Entry]
    rsync: RsyncHere | None


@final
class RunReply(Files):
    """A run, and the files that it wrote.

    Args:
        run: the run's record.
    """

    run: RunRecord


class CachedFiles(Files):
    """The files in the cache.

    Args:
        cache_dir: the cache root, absolute.
    """

    cache_dir: str


@final
class CacheReply(CachedFiles, total=False):
    """The files in the cache, and whether there are others.

    Args:
        foreign: number of files of other accounts, in folders that others can write to; they are not listed.
            Absent if there are none.
    """

    foreign: int


RunAnswer = Union[RunReply, Stale]


class ListParams(TypedDict):
    """Which runs to list.

    Args:
        newest: how many of the newest; 0 for all.
    """

    newest: int


class ListedRuns(TypedDict):
    """The workspace's runs.

    Args:
        runs: the records, oldest first.
    """

    runs: list[RunRecord]


class ListReply(ListedRuns, total=False):
    """The workspace's runs, and whether there are more.

    Args:
        older: how many runs are older than these; absent if there are none.
    """

    older: int


class SignalParams(TypedDict):
    """A signal for a run's process group.

    Args:
        id: the run.
        signal: the signal's number.
    """

    id: str
    signal: int


class SignalReply(TypedDict):
    """Whether a signal was sent.

    Args:
        delivered: false if none of the run's processes is left.
    """

    delivered: bool


class OutputsParams(ResultsWanted):
    """A run whose files to send.

    Args:
        id: the run.
    """

    id: str


class CacheParams(ResultsWanted):
    """A part of the cache to send.

    Args:
        cache_dir: the cache root.
        kernel: a folder below the cache root; null for the whole cache.
    """

    cache_dir: str
    kernel: str | None


# The doctor -------------------------------------------------------------------------------------------------


class ProbeSettings(TypedDict):
    """What the checks need from the settings and from this laptop.

    Args:
        venv_path: the virtual environment.
        python: the interpreter called `python` if there is no venv_path.
        cache_dir: the cache root.
        rsync: the rsync program to test.
        device_lock: runs lock the accelerator.
        lock: digest of requirements.lock; null if it is missing.
        runs: the workspace's runs.
    """

    venv_path: str | None
    python: str | None
    cache_dir: str
    rsync: str
    device_lock: bool
    lock: str | None
    runs: list[RunRecord]


class ProbeParams(ProbeSettings):
    """One check of the host's half of `inv doctor`.

    Args:
        check: the check's name.
        now: the laptop's clock, in seconds since 1970.
    """

    check: str
    now: float


class Row(TypedDict):
    """Result of a check.

    Args:
        name: the capability.
        ok: whether the host has it.
        seen: what the check found.
        hint: how to fix it.
        code: exit code of a run that needs the capability; 0 if a run would continue without it.
        seconds: duration of the check.
    """

    name: str
    ok: bool
    seen: str
    hint: str
    code: int
    seconds: float


class ProbeReply(TypedDict):
    """Reply to one check.

    Args:
        found: the check's row; empty if the check does not apply.
    """

    found: list[Row]


class LeftBehind(TypedDict):
    """A process that was left behind, to see whether it outlives its connection.

    Args:
        process: the process.
    """

    process: Process


class LookReply(TypedDict):
    """What became of the process that was left behind.

    Args:
        alive: it still runs.
    """

    alive: bool


# Requests, and errors ---------------------------------------------------------------------------------------


class Request(TypedDict):
    """The payload of a `Q` frame.

    Args:
        op: the operation.
        code_path: the workspace on the host.
        offset: bytes of output frames that the client has consumed.
        params: the op's own parameters.
    """

    op: str
    code_path: str
    offset: int
    params: Any


class Refused(TypedDict):
    """The reply to a request that failed.

    Args:
        error: kind of error: `unavailable`, `permission`, `usage`, `io`, `data`, `protocol` (no request of
            ours), or `busy` (another push).
        message: what failed and where.
        hint: what to type next.
    """

    error: str
    message: str
    hint: str


# What the host keeps ----------------------------------------------------------------------------------------


class RsyncHere(TypedDict):
    """The host's rsync.

    Args:
        path: its path; null if it is missing.
        says: output of `rsync --version`.
        system: ID and ID_LIKE of os-release(5).
    """

    path: str | None
    says: str
    system: str


class RsyncKept(RsyncHere):
    """The result of an earlier `rsync --version`, kept on the host in `rsync-version`.

    Args:
        key: the program's path, size and mtime at that time.
    """

    key: list[object]


class Holder(Client):
    """The client that pushed to a code path last, kept on the host in `holder`.

    Args:
        at: time of the push, in seconds since 1970.
    """

    at: float


class AccountHeader(TypedDict, total=False):
    """The first line of the file that the host keeps about each client's push.

    Args:
        stamp: digest of the tree.
        folders: paths of the folders that the push created.
        absent: paths that are listed but were never sent.
        altered: records of the files on the host, if rsync's options change the files that arrive.
        left: records that were pushed and are no longer listed, but were not deleted.
        named: paths that the current push sends.
    """

    stamp: str
    folders: Packed
    absent: Packed
    altered: Packed
    left: Packed
    named: Packed


_For = TypedDict("_For", {"for": str})


class DeviceOrder(_For):
    """A request for the accelerator's lock.

    Args:
        for: the person who asked, for messages.
        run: the run.
    """

    run: str


class DeviceHolder(DeviceOrder):
    """The holder of the accelerator's lock, written to the lock file.

    Args:
        user: the account.
        pid: the process.
        since: time when it took the lock, in seconds since 1970.
    """

    user: str
    pid: int
    since: float


class Orders(TypedDict):
    """Parameters of `inv provision`.

    Args:
        venv: the virtual environment to create.
        extras: the project's extras to install.
        python: the interpreter to create it with; null leaves it to the host.
    """

    venv: str
    extras: list[str]
    python: str | None


class Mark(TypedDict, total=False):
    """What was installed, kept in the virtual environment as `.remote-provision.json`.

    Args:
        accelerator: `neuron`, `cuda` or `plain`.
        extras: the installed extras.
        files: digests by name, of requirements.lock, pyproject.toml and requirements.txt.
        project: the project's folder.
        python: version of the interpreter.
    """

    accelerator: str
    extras: list[str]
    files: dict[str, str]
    project: str
    python: str


class HelloReply(TypedDict):
    """What the host program knows of itself.

    Args:
        program: the folder that holds it as the package `host`.
        python: the interpreter that runs it.
        state: the folder of the workspace's state.
    """

    program: str
    python: str
    state: str


# The requests, and the frames -------------------------------------------------------------------------------

ParamsT = TypeVar("ParamsT")
ReplyT_co = TypeVar("ReplyT_co", covariant=True)


class Ask(Generic[ReplyT_co]):
    """A request to send, with the type of its reply."""

    def __init__(self, op: str, params: object) -> None:
        """Keep the operation and its parameters."""
        self.op, self.params = op, params


class Op(Generic[ParamsT, ReplyT_co]):
    """An operation of the host program: its name, and the types of its parameters and its reply."""

    def __init__(self, name: str, about: str) -> None:
        """Keep the name and the description."""
        self.name, self.about = name, about

    def __call__(self, params: ParamsT) -> Ask[ReplyT_co]:
        """Return a request with these parameters."""
        return Ask(self.name, params)

    def answered_by(self, function: Callable[Concatenate[ParamsT, ...], ReplyT_co | Refused]) -> None:
        """Let mypy check that the function that answers has these types."""


HELLO: Op[Nothing, HelloReply] = Op("hello", "replies at once")
RUN: Op[RunParams, RunAnswer] = Op(
    "run",
    "ends a push if there is an `ending`; replies `Stale` if the tree does not have the expected `stamp`; "
    "starts the run, or finds it; streams it from `offset`",
)
ATTACH: Op[AttachParams, RunReply] = Op("attach", "streams a run that was started earlier, from `offset`")
LIST: Op[ListParams, ListReply] = Op("list", "returns the records of runs")
SIGNAL: Op[SignalParams, SignalReply] = Op("signal", "signals a run's process group")
OUTPUTS: Op[OutputsParams, RunReply] = Op("outputs", "sends the files that a run wrote")
CACHE: Op[CacheParams, CacheReply] = Op("cache", "sends the files in the cache")
BEGIN: Op[BeginParams, BeginReply] = Op("sync.begin", "compares the trees")
CLEAR: Op[ClearParams, ClearReply] = Op("sync.clear", "clears the way for incoming files")
FINISH: Op[PushEnding, PushEnded] = Op("sync.finish", "ends a push: deletes files, and writes the stamp")
LEAVE: Op[Nothing, LeftBehind] = Op("leave", "starts a process that outlives the session, and ends soon")
LOOK: Op[LeftBehind, LookReply] = Op("look", "checks whether that process still runs")
PROBE: Op[ProbeParams, ProbeReply] = Op("probe", "runs one check of the host's half of `inv doctor`")


class Frame(NamedTuple):
    """A kind of frame: its byte, its name, its receiver, and its payload."""

    kind: bytes
    name: str
    to: str
    payload: str


FRAMES = (
    Frame(frames.REQUEST, "request", "host", "`Request`, JSON"),
    Frame(frames.SOURCES, "sources", "host", "the host program, a JSON object of text by file name"),
    Frame(frames.SIGNAL, "signal", "host", "a signal's number, decimal, for the run's process group"),
    Frame(frames.INPUT, "input", "host", "bytes for the run's terminal"),
    Frame(frames.WINDOW, "window", "host", "rows and columns, decimal"),
    Frame(frames.PING, "ping", "host", "nothing; also renews the run's lease"),
    Frame(
        frames.REPLY, "reply", "laptop", "JSON: `Refused` or the reply of the op, which `Started` may precede"
    ),
    Frame(frames.NEED, "need", "laptop", "nothing: send the sources"),
    Frame(frames.STDOUT, "stdout", "laptop", "the command's stdout"),
    Frame(frames.STDERR, "stderr", "laptop", "the command's stderr"),
    Frame(
        frames.RESULT,
        "file",
        "laptop",
        "a small result: mtime in ns (8 bytes) and length of the path (4), big-endian; path; data",
    ),
    Frame(frames.PING, "pong", "laptop", "nothing: the reply to a ping"),
)
