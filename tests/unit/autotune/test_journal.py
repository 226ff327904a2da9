import json
import os
import resource
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from autotune.model.errors import CacheError, DataError
from autotune.store import journal


def records(count, start=0):
    return [{"record": "trial", "n": n} for n in range(start, start + count)]


def write(folder, name, items, *, close=True):
    writer = journal.Writer(folder, name)
    for item in items:
        writer.append([json.dumps(item)])
    if close:
        writer.close()
    return writer.path


def test_what_is_appended_is_read_back_in_order(tmp_path):
    read = journal.read(write(tmp_path, "a", records(5)))
    assert (records(5), False, True) == (read.records, read.torn, read.finished)
    assert os.getpid() == read.writer["pid"]


def test_no_record_leaves_no_file(tmp_path):
    journal.Writer(tmp_path, "a").close()
    assert [] == list(tmp_path.iterdir())


def test_a_journal_that_was_not_closed_is_read_but_not_finished(tmp_path):
    writer = journal.Writer(tmp_path, "a")
    writer.append([json.dumps(records(1)[0])])
    read = journal.read(writer.path)
    assert (records(1), False, False, False) == (read.records, read.torn, read.finished, read.abandoned)
    writer.close()


def test_the_journal_of_a_dead_process_is_abandoned(tmp_path):
    script = """
import sys, os
from pathlib import Path
from autotune.store import journal
writer = journal.Writer(Path(sys.argv[1]), "a")
writer.append(['{"record": "trial"}'])
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", script, tmp_path], check=False)
    read = journal.read(tmp_path / "a.jsonl")
    assert (-signal.SIGKILL, 1, True, False) == (
        done.returncode,
        len(read.records),
        read.abandoned,
        read.finished,
    )


def test_wherever_the_last_line_is_torn_the_others_are_kept_and_it_is_told(tmp_path):
    path = write(tmp_path, "a", records(3), close=False)
    whole = path.read_bytes()
    last = whole.rstrip(b"\n").rindex(b"\n") + 1
    for end in range(last + 1, len(whole)):
        path.write_bytes(whole[:end])
        read = journal.read(path)
        assert (records(2), True) == (read.records, read.torn), end


@pytest.mark.parametrize("tail", [b"\0" * 40, b"\0" * 40 + b"\n", b"0000", b'00000000 {"n": 1}\n'])
def test_a_tail_of_rubbish_is_a_torn_record(tmp_path, tail):
    path = write(tmp_path, "a", records(3), close=False)
    path.write_bytes(path.read_bytes() + tail)
    read = journal.read(path)
    assert (records(3), True) == (read.records, read.torn)


def test_a_damaged_line_before_the_last_is_an_error_that_names_file_and_line(tmp_path):
    path = write(tmp_path, "a", records(3))
    data = path.read_bytes()
    for place in range(data.index(b"\n") + 1, data.index(b"\n", data.index(b"\n") + 1)):
        damaged = bytearray(data)
        damaged[place] ^= 4
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=f"{path}: line . of . is corrupt"):
            journal.read(path)


def test_an_empty_file_holds_nothing(tmp_path):
    (tmp_path / "a.jsonl").touch()
    read = journal.read(tmp_path / "a.jsonl")
    assert ([], False, False) == (read.records, read.torn, read.finished)


def framed(text):
    return b"%08x %s\n" % (zlib.crc32(text), text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (framed(b'{"schema": 2, "writer": {}}'), "newer than 1"),
        (framed(b"not json"), "not a journal"),
        (framed(b"[1]"), "not a journal"),
        (framed(b'{"schema": 1, "writer": {}}') + framed(b"[]"), "not a journal"),
        (framed(b"[" * 100_000), "not a journal"),
    ],
)
def test_a_file_of_another_make_is_refused(tmp_path, content, message):
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=message):
        journal.read(tmp_path / "a.jsonl")


def test_journals_are_read_oldest_first_whatever_the_clocks_said(tmp_path):
    write(tmp_path, "20991231-b", records(1, 0))
    write(tmp_path, "20260101-a", records(1, 1))
    assert [records(1, 0), records(1, 1)] == [each.records for each in journal.read_all(tmp_path)]


def test_a_disk_that_fills_up_leaves_whole_records_only(tmp_path):
    script = """
import resource, sys
from pathlib import Path
from autotune.model import errors
from autotune.store import journal
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
writer = journal.Writer(Path(sys.argv[1]), "a")
written = 0
try:
    while True:
        writer.append(['{"record": "trial", "padding": "%s"}' % ("x" * 100)])
        written += 1
except errors.CacheError as fault:
    print(written, fault)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True
    )
    read = journal.read(tmp_path / "a.jsonl")
    written, _, message = done.stdout.partition(" ")
    assert (int(written), False) == (len(read.records), read.torn)
    assert f"{tmp_path / 'a.jsonl'}: cannot be written: File too large\n" == message
    assert int(written) > 3


def test_a_disk_that_is_full_from_the_start_leaves_no_file(tmp_path):
    writer = journal.Writer(tmp_path, "a")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(CacheError, match="cannot be written: File too large"):
            writer.append(["{}"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [] == list(tmp_path.iterdir())


def test_many_writers_at_once_lose_nothing(tmp_path):
    script = """
import sys
from pathlib import Path
from autotune.store import journal
writer = journal.Writer(Path(sys.argv[1]), sys.argv[2])
for n in range(50):
    writer.append(['{"record": "trial", "n": "%s-%d"}' % (sys.argv[2], n)])
writer.close()
"""
    children = [subprocess.Popen([sys.executable, "-c", script, tmp_path, str(n)]) for n in range(4)]
    assert [0] * 4 == [child.wait() for child in children]
    found = {record["n"] for each in journal.read_all(Path(tmp_path)) for record in each.records}
    assert {f"{writer}-{n}" for writer in range(4) for n in range(50)} == found
