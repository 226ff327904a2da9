"""Give a type to what travels between the laptop and the host, and to what both write down.

Both ends annotate with these types, so mypy sees a misspelt key on either side. docs/protocol.md has its
tables from here: `python -m remote_tools.ssh.protocol_page`. The host imports this file for mypy alone: to
make the types takes longer than to answer a request.

A `TypedDict` whose name ends with `Params` is what a request asks with. `Packed` is a word of JSON that holds
records or paths, see `listing.pack`. Paths travel as os.fsdecode gives them. JSON has no tuples, so pairs and
triples are lists. A type is `final` if `in` tells it from another reply.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, List, NamedTuple, TypedDict, TypeVar, Union, final

from . import frames

if TYPE_CHECKING:
    from typing import Callable, Concatenate  # Python 3.10, where mypy runs

Packed = str
Entry = List[Any]
"""A file that a run wrote: [path below the cache root, size in bytes, mtime in ns]."""
Process = List[Any]
"""A process: [pid, when it started in kernel ticks]; see `processes.born`."""


class Nothing(TypedDict):
    """No keys at all."""


# A push -----------------------------------------------------------------------------------------------------


class Client(TypedDict):
    """Who pushes.

    Args:
        client: the checkout's random name.
        name: user and machine, for people.
    """

    client: str
    name: str


class ComparisonParams(Client):
    """What every comparison of the two trees is asked with.

    Args:
        stamp: digest of the laptop's tree.
        dry: change no state on the host either.
        rsync: the program to look for.
        more: more may be sent than the host names, since rsync compares the contents too.
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
    """A comparison with what changed since an earlier push.

    Args:
        base: stamp of that push.
        changed: records of new and changed files.
        gone: paths that are no longer there.
    """

    base: str
    changed: Packed
    gone: Packed


@final
class WantListing(TypedDict):
    """The host knows nothing of `base`.

    Args:
        want_listing: always true: ask again with the whole listing.
    """

    want_listing: bool


@final
class PlanReply(TypedDict):
    """What a push has to do.

    Args:
        new: paths that the host does not have.
        changed: paths that differ from what was pushed there.
        conflict: [path, digest] of what somebody else changed there; no digest if the sizes differ.
        blocked: paths of what stands in the way there: a folder, or a link in place of one.
        delete: paths that were pushed and are no longer listed.
        kept: [path, why] of what was pushed, is no longer listed and stays.
        pushed: how many files an earlier push left there.
        root: the code path, absolute.
        rsync: the host's rsync.
        holder: who pushed there last.
    """

    new: Packed
    changed: Packed
    conflict: list[list[str]]
    blocked: Packed
    delete: Packed
    kept: list[list[str]]
    pushed: int
    root: str
    rsync: RsyncHere
    holder: Holder | None


BeginParams = Union[ListingParams, ChangesParams]
BeginReply = Union[WantListing, PlanReply]


class ClearParams(Client):
    """What makes way for files about to arrive.

    Args:
        blocked: paths of what is moved away.
        delete: paths that may be deleted if they are below one of these.
        folders: paths to make, since of two rsyncs that make one at the same time one fails.
        date: what names of kept files end with.
    """

    blocked: Packed
    delete: Packed
    folders: Packed
    date: str


class ClearReply(TypedDict):
    """What making way changed.

    Args:
        removed: paths that were deleted.
        beside: [path, name] of what was kept under another name.
    """

    removed: Packed
    beside: list[list[str]]


class PushEnding(Client):
    """What ends a push.

    Args:
        stamp: digest of the tree that was sent.
        date: what names of kept files end with.
        records: these replace announced ones: the files changed while they were sent.
        vanished: paths that vanished while they were sent.
        absent: paths that rsync was not given.
        delete: paths that may be deleted.
        kept: paths that are no longer listed and stay.
        contents: base64 by path, of small files that come along here instead of by rsync.
        aside: where below `.remote-displaced` what they replace waits.
        altering: rsync's options change what arrives.
    """

    stamp: str
    date: str
    records: Packed
    vanished: Packed
    absent: Packed
    delete: Packed
    kept: Packed
    contents: dict[str, str]
    aside: str
    altering: bool


class PushEnded(TypedDict):
    """What came of a push.

    Args:
        removed: paths that were deleted.
        kept: [path, why] of what was to be deleted and stays.
        beside: [path, name] of what the push overwrote and is kept under another name.
        differs: paths that are not as they were sent.
    """

    removed: Packed
    kept: list[list[str]]
    beside: list[list[str]]
    differs: list[str]


# A run ------------------------------------------------------------------------------------------------------


class Spec(TypedDict):
    """What the host is to run, and how.

    Args:
        argv: the words; null if `shell` is given.
        shell: a string for the login shell.
        cache_dir: the cache root.
        venv_path: the virtual environment.
        python: what `python` means without one; null leaves it to the host.
        pty: give the command a terminal.
        size: that terminal's [rows, columns].
        term: its TERM.
        on_disconnect: `keep` lets the run live without a client, `kill` ends it after `lease_s`.
        lease_s: how long the run lives without a client; 0 with `kill` means as soon as the loss is noticed.
        keep_runs: how many ended runs the host keeps.
        device_for: for whom the accelerator is locked while the command runs; null takes no lock.
        env: more variables.
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
    """How results come back.

    Args:
        inline_bytes: small files come along if together they are no larger; 0 wants no files.
        rsync: the program that brings the others.
    """

    inline_bytes: int
    rsync: str


class RunParams(ResultsWanted):
    """A run to be started.

    Args:
        id: names the run; a second start of the same id attaches to the first.
        spec: what to run.
        stamp: of the tree that must be there; null if it does not matter.
        ending: a push to be ended first.
        detach: reply as soon as the run is there.
    """

    id: str
    spec: Spec
    stamp: str | None
    ending: PushEnding | None
    detach: bool


class AttachParams(ResultsWanted):
    """A run that was started before.

    Args:
        id: the run.
        follow: stream to the run's end, not only to what there is now.
    """

    id: str
    follow: bool


class Started(TypedDict):
    """The run is there: comes before the reply that ends the request.

    Args:
        started: the run's id.
        pushed: what came of the push that was ended first.
    """

    started: str
    pushed: PushEnded | None


@final
class Stale(TypedDict):
    """The tree on the host is not the expected one; nothing was started.

    Args:
        stale: always true: push, and ask again.
    """

    stale: bool


class RunBegun(TypedDict):
    """What a run's record holds from its beginning.

    Args:
        id: the run.
        state: `starting`, `running`, `ended`, or `lost`: its owner is gone without an end.
        host: the host's own name.
        user: the account there.
        cwd: the code path, absolute.
        cache_dir: the cache root, absolute.
        argv: the words that are executed.
        env: the variables that we set.
        shell: the string that the words hold, if one was given.
        pty: the command has a terminal.
        python: version of the Python that owns the run.
        started: when, in seconds since 1970.
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
        since_ns: later changes below the cache root are the run's; null if all is new.
        pid: the command's process, and its group.
        process: the same, named for ever.
        tty: the command's terminal.
        exit: its exit code, 128+n after a signal.
        signal: that signal.
        ended: when, in seconds since 1970.
        output_bytes: size of what it printed, as frames.
        fault: what could not be recorded, in words.
        left_running: processes of it still run.
        lease_ended: it was ended since its client was gone.
        files: how many files it wrote.
        files_bytes: their size.
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
    lease_ended: bool
    files: int
    files_bytes: int


class Files(TypedDict):
    """Files below the cache root; small ones were sent before this reply.

    Args:
        outputs: [path, size in bytes, mtime in ns] of each.
        rsync: the host's rsync; null if nothing is left for it.
    """

    outputs: list[Entry]
    rsync: RsyncHere | None


@final
class RunReply(Files):
    """A run, and what it wrote.

    Args:
        run: its record.
    """

    run: RunRecord


@final
class CacheReply(Files):
    """What the cache holds.

    Args:
        cache_dir: the cache root, absolute.
    """

    cache_dir: str


RunAnswer = Union[RunReply, Stale]


class ListReply(TypedDict):
    """The workspace's runs.

    Args:
        runs: their records, oldest first.
    """

    runs: list[RunRecord]


class SignalParams(TypedDict):
    """A signal for a run's process group.

    Args:
        id: the run.
        signal: the number.
    """

    id: str
    signal: int


class SignalReply(TypedDict):
    """Whether a signal was sent.

    Args:
        delivered: false if nothing of the run is left.
    """

    delivered: bool


class OutputsParams(ResultsWanted):
    """A run whose files are wanted.

    Args:
        id: the run.
    """

    id: str


class CacheParams(ResultsWanted):
    """A part of the cache that is wanted.

    Args:
        cache_dir: the cache root.
        kernel: a folder below it; null for all.
    """

    cache_dir: str
    kernel: str | None


# The doctor -------------------------------------------------------------------------------------------------


class ProbeSettings(TypedDict):
    """What the checks need of the settings and of this laptop.

    Args:
        venv_path: the virtual environment.
        python: what `python` means without one.
        cache_dir: the cache root.
        rsync: the program to try.
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
        check: its name.
        now: the laptop's clock, in seconds since 1970.
    """

    check: str
    now: float


class Row(TypedDict):
    """What came of a check.

    Args:
        name: the capability.
        ok: whether it is there.
        seen: what was tried and what came of it.
        hint: what mends it.
        code: exit code of a run that needs it; 0 if a run would go on.
        seconds: how long trying took.
    """

    name: str
    ok: bool
    seen: str
    hint: str
    code: int
    seconds: float


class ProbeReply(TypedDict):
    """What a check found.

    Args:
        found: its row, or nothing if there was nothing to try.
    """

    found: list[Row]


# Requests, and errors ---------------------------------------------------------------------------------------


class Request(TypedDict):
    """The payload of a `Q` frame.

    Args:
        op: what is asked for.
        code_path: the workspace on the host.
        offset: bytes of output frames that the client has consumed.
        params: the op's own parameters.
    """

    op: str
    code_path: str
    offset: int
    params: Any


class Refused(TypedDict):
    """The reply to a request that cannot be carried out.

    Args:
        error: which of the client's errors it is: `unavailable`, `permission`, `usage`, `io`, `data` or
            `temporary`.
        message: what failed and where.
        hint: what to type next.
    """

    error: str
    message: str
    hint: str


# What the host keeps ----------------------------------------------------------------------------------------


class RsyncHere(TypedDict):
    """Which rsync a host has.

    Args:
        path: where it is; null if it is missing.
        says: what `rsync --version` prints.
        system: ID and ID_LIKE of os-release(5).
    """

    path: str | None
    says: str
    system: str


class RsyncKept(RsyncHere):
    """What was found before, kept on the host in `rsync-version`.

    Args:
        key: the program's path, size and mtime then.
    """

    key: list[object]


class Holder(Client):
    """Who pushed to a code path last, kept on the host in `holder`.

    Args:
        at: when, in seconds since 1970.
    """

    at: float


class AccountHeader(TypedDict, total=False):
    """The first line of what the host keeps of each client's push.

    Args:
        stamp: digest of the tree.
        folders: paths of the folders that the push made.
        absent: paths that are listed but were never sent.
        altered: records as they look on the host, if rsync's options change what arrives.
        left: records that were pushed once and are no longer listed, though not deleted.
        named: paths that a push under way sends.
    """

    stamp: str
    folders: Packed
    absent: Packed
    altered: Packed
    left: Packed
    named: Packed


_For = TypedDict("_For", {"for": str})


class DeviceOrder(_For):
    """Who asks for the accelerator.

    Args:
        for: the person, for people.
        run: the run.
    """

    run: str


class DeviceHolder(DeviceOrder):
    """Who holds the accelerator, written in the lock's file.

    Args:
        user: the account.
        pid: the process.
        since: when it took the lock, in seconds since 1970.
    """

    user: str
    pid: int
    since: float


class Orders(TypedDict):
    """What `inv provision` has the host do.

    Args:
        venv: the virtual environment to make.
        extras: of the project, to be installed.
        python: the interpreter to make it with; null leaves it to the host.
    """

    venv: str
    extras: list[str]
    python: str | None


class Mark(TypedDict, total=False):
    """What was installed, written in the virtual environment as `.remote-provision.json`.

    Args:
        accelerator: `neuron`, `cuda` or `plain`.
        extras: that were installed.
        files: digest by name, of what says what to install.
        project: its folder.
        python: version of the interpreter.
    """

    accelerator: str
    extras: list[str]
    files: dict[str, str]
    project: str
    python: str


# The requests, and the frames -------------------------------------------------------------------------------

ParamsT = TypeVar("ParamsT")
ReplyT_co = TypeVar("ReplyT_co", covariant=True)


class Ask(Generic[ReplyT_co]):
    """A request that is ready to be sent, with the type of its reply."""

    def __init__(self, op: str, params: object) -> None:
        """Keep its name and parameters."""
        self.op, self.params = op, params


class Op(Generic[ParamsT, ReplyT_co]):
    """A request that the host program answers: its name, with the types of its parameters and its reply."""

    def __init__(self, name: str, about: str) -> None:
        """Name it, and say what it does."""
        self.name, self.about = name, about

    def __call__(self, params: ParamsT) -> Ask[ReplyT_co]:
        """Ask with these parameters."""
        return Ask(self.name, params)

    def answered_by(self, function: Callable[Concatenate[ParamsT, ...], ReplyT_co | Refused]) -> None:
        """Have mypy compare the types with those of the function that answers."""


HELLO: Op[Nothing, Nothing] = Op("hello", "is answered at once")
RUN: Op[RunParams, RunAnswer] = Op(
    "run",
    "ends a push if there is an `ending`; replies `Stale` if the tree has not the expected `stamp`; starts "
    "the run, or finds it; streams it from `offset`",
)
ATTACH: Op[AttachParams, RunReply] = Op("attach", "streams a run that was started before, from `offset`")
LIST: Op[Nothing, ListReply] = Op("list", "returns every run's record")
SIGNAL: Op[SignalParams, SignalReply] = Op("signal", "signals a run's process group")
OUTPUTS: Op[OutputsParams, RunReply] = Op("outputs", "sends what a run wrote")
CACHE: Op[CacheParams, CacheReply] = Op("cache", "sends what the cache holds")
BEGIN: Op[BeginParams, BeginReply] = Op("sync.begin", "compares the trees")
CLEAR: Op[ClearParams, ClearReply] = Op("sync.clear", "makes way for files about to arrive")
FINISH: Op[PushEnding, PushEnded] = Op("sync.finish", "ends a push: deletes, and writes the stamp")
PROBE: Op[ProbeParams, ProbeReply] = Op("probe", "runs one check of the host's half of `inv doctor`")


class Frame(NamedTuple):
    """A kind of frame: its byte, its name, where it goes, and what it carries."""

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
    Frame(frames.STDOUT, "stdout", "laptop", "what the command printed"),
    Frame(frames.STDERR, "stderr", "laptop", "the same, on stderr"),
    Frame(
        frames.RESULT,
        "file",
        "laptop",
        "a small result: mtime in ns (8 bytes) and length of the path (4), big-endian; path; data",
    ),
    Frame(frames.PING, "pong", "laptop", "nothing: the answer to a ping"),
)
