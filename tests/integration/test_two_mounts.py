"""Two tuners on one cache that each reaches over a network file system of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from autotune.store.catalog import workloads
from autotune.verify import verify
from remote_tools.setup.sandbox import Sandbox
from tests import needs

TUNE = """
import sys
from autotune import Budget, Timing, tune
from autotune.kernels import softmax

timing = Timing(warmup_s=0, min_repeats=3, max_repeats=3, max_s=0.02)
budget = Budget(trials=12)
results = tune(softmax.kernel, softmax.inputs(16, 64), budget=budget, timing=timing, cache_dir=sys.argv[1])
kept = [note for note in results.notes if sys.argv[1] in note or "cache" in note]
print(len(results.trials), results.best is not None, *kept)
"""


@pytest.fixture
def mounts(sandbox: Sandbox, tmp_path: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Give a folder, and two places where it is mounted through sshfs."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("/dev/fuse cannot be used here")
    export, *places = (tmp_path / name for name in ("export", "one", "other"))
    export.mkdir()
    with ExitStack() as stack:
        for place in places:
            place.mkdir()
            where = f"{sandbox.host_alias}:{export}"
            subprocess.run(["sshfs", "-F", str(sandbox.ssh_config), where, str(place)], check=True)
            stack.callback(subprocess.run, ["fusermount3", "-u", str(place)], check=True)
        yield export, places


@needs.skip_without("sshfs")
def test_both_finish_and_no_record_is_lost(mounts: tuple[Path, list[Path]]) -> None:
    export, places = mounts
    tuners = [
        subprocess.Popen([sys.executable, "-c", TUNE, str(place)], stdout=subprocess.PIPE, text=True)
        for place in places
    ]
    said = [tuner.communicate()[0].split() for tuner in tuners]
    assert ([0, 0], [["12", "True"]] * 2) == ([tuner.returncode for tuner in tuners], said)
    count, findings = verify(export)
    assert [] == findings
    again = subprocess.run(
        [sys.executable, "-c", TUNE, str(export)], capture_output=True, text=True, check=True
    )
    assert [str(count), "True"] == again.stdout.split()
    assert [] == list(export.rglob(".unfinished*"))
    assert 1 == len(workloads(export))
