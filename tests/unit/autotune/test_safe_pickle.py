import datetime
import os
import pickle
import pickletools
import random
import struct

import pytest

from autotune.model.errors import DataError
from autotune.store import safe_pickle

PLAIN = {
    "text": "grün",
    "bytes": b"\0\xff",
    "numbers": [0, -1, 255, 256, 70000, 2**40, -(2**70), 1.5, -0.0, True, False, None],
    "nested": ({"a": [{"b": (1, 2, 3, 4)}]}, {1, 2}, frozenset({3}), [], (), {}),
    "long": "x" * 300,
}


OPCODES = [each.code.encode("latin-1")[0] for each in pickletools.opcodes]


class Touch:
    """Unpickling this runs a command."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_plain_builtins_come_back_as_they_went():
    assert PLAIN == safe_pickle.loads(safe_pickle.dumps(PLAIN), "here")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_would_run_a_command_is_refused_and_runs_nothing(tmp_path, protocol):
    hostile = pickle.dumps({"trial": Touch(tmp_path / "ran")}, protocol)
    with pytest.raises(DataError, match="from-afar"):
        safe_pickle.loads(hostile, "from-afar")
    assert [] == list(tmp_path.iterdir())


HOSTILE = {
    "a class by name": pickle.dumps(datetime.date(2026, 1, 1)),
    "a builtin function": pickle.dumps(print),
    "a class of our own": pickle.dumps(DataError),
    "the oldest way to call": b"cos\nsystem\n(S'true'\ntR.",
    "an instance": b"(S'true'\nios\nsystem\n.",
    "an object": b"(cos\nsystem\nS'true'\no.",
    "a persistent object": b"Pevil\n.",
    "an extension": b"\x80\x02\x82\x01.",
    "a name assembled on the stack": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
    "a memo slot far away": b"\x80\x04Nr\xff\xff\xff\x7f.",
    "a bytearray of a terabyte": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",
    "a string of four gigabytes": b"\x80\x04X\xff\xff\xff\xff.",
    "a buffer out of band": b"\x80\x05\x97.",
    "a list as a key": b"\x80\x04}]N s.".replace(b" ", b""),
    "a list that holds itself": b"\x80\x04]\x94h\x00a.",
    "a torn pickle": safe_pickle.dumps(PLAIN)[:-20],
    "an empty file": b"",
    "a dict that is appended to": b"\x80\x04}Na.",
    "a list that is added to": b"\x80\x04](N\x90.",
    "text": b"#!/bin/sh\necho hello\n",
    "a stack that is empty": b"\x80\x04.",
    "a memo that is empty": b"\x80\x04h\x07.",
    "a tuple that holds itself twice, sixty times over, in a set": (
        b"\x80\x04\x8f(K\x01" + b"".join(b"\x94h%c\x86" % each for each in range(60)) + b"\x90."
    ),
    "the same as a key": (b"\x80\x04}K\x01" + b"".join(b"\x94h%c\x86" % each for each in range(60)) + b"Ns."),
    "frozensets of frozensets as a member": b"\x80\x04\x8f(" + b"(" * 9000 + b"\x91" * 9000 + b"\x90.",
    "a tuple nested a million deep as a key": b"\x80\x04})" + b"\x85" * 1_000_000 + b"Ns.",
    "the same, of pairs with a text": b"\x80\x04})" + b"\x8c\x01x\x86" * 300_000 + b"Ns.",
    "lists nested 400,000 deep": b"\x80\x04" + b"]" * 400_000 + b"a" * 399_999 + b".",
    "dicts nested 100,000 deep": b"\x80\x04" + b"}N" * 100_000 + b"}" + b"s" * 100_000 + b".",
    "a list that holds itself twice, sixty times over": (
        b"\x80\x04]\x94" + b"".join(b"](h%ch%ce\x94" % (each, each) for each in range(60)) + b"."
    ),
    "a dict that holds itself": b"\x80\x04}\x94Nh\x00s.",
    "more opcodes than any trial": b"\x80\x04]" + b"(e" * 1_000_000 + b".",
    "memo entries by the million": b"\x80\x04N" + b"\x94" * 2_000_000 + b".",
    "a list that is put into the memo by number": b"\x80\x04]q\x00h\x00a.",
    "a value that is doubled on the stack": b"\x80\x02]2a.",
    "an instance without a call": b"\x80\x04cdatetime\ndate\n)\x81.",
    "a state": b"\x80\x04}}b.",
    "a persistent object on the stack": b"\x80\x04\x8c\x04evilQ.",
    "an extension of four bytes": b"\x80\x02\x84\xff\xff\xff\x7f.",
    "an integer of two gigabytes": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "an integer as text": b"I" + b"9" * 1_000_000 + b"\n.",
    "bytes of an exabyte": b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b".",
    "a text of an exabyte": b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b".",
    "a frame of an exabyte": b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"N.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_refused(name):
    with pytest.raises(DataError, match="refused as a pickle of plain values"):
        safe_pickle.loads(HOSTILE[name], "from-afar")


@pytest.mark.parametrize("count", [20_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_a_damaged_pickle_is_read_or_refused(count):
    whole, draw = safe_pickle.dumps(PLAIN), random.Random(count)
    refused = 0
    for _ in range(count):
        data = bytearray(whole)
        for _ in range(draw.choice([1, 2, 8])):
            at = draw.randrange(len(data))
            kind = draw.randrange(3)
            if kind == 0:
                data[at] = draw.choice(OPCODES)
            elif kind == 1:
                data[at:at] = draw.choices(OPCODES, k=draw.choice([1, 4]))
            else:
                del data[at]
        try:
            safe_pickle.loads(bytes(data), "from-afar")
        except DataError:
            refused += 1
    assert count / 2 < refused < count


def test_a_pickle_that_unfolds_without_end_is_refused():
    laughs = ["ha"]
    for _ in range(40):
        laughs = [laughs, laughs]
    assert len(safe_pickle.dumps(laughs)) < 1000
    with pytest.raises(DataError, match="unfolds to more than"):
        safe_pickle.loads(safe_pickle.dumps(laughs), "from-afar")


def test_a_pickle_nested_beyond_measure_is_refused():
    deep = []
    for _ in range(200):
        deep = [deep]
    with pytest.raises(DataError, match="nested more than"):
        safe_pickle.loads(safe_pickle.dumps(deep), "from-afar")


def test_a_pickle_larger_than_any_trial_is_refused_unread(monkeypatch):
    monkeypatch.setattr(safe_pickle, "MAX_BYTES", 100)
    with pytest.raises(DataError, match="more than 100"):
        safe_pickle.loads(safe_pickle.dumps(PLAIN), "from-afar")
