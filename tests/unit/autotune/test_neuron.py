"""Backend `neuron` keeps its contract with stand-ins for the Neuron SDK; nothing here ran on a device."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import neuronx
import numpy as np
import pytest

from autotune import Status, script, tune
from autotune.backends import Artifact
from autotune.backends.device import DeviceFault, Fault
from autotune.backends.neuron import (
    NEVER_RUN,
    NeuronBackend,
    backend,
    cores,
    device,
    errors,
    neuron_compile,
    peaks,
    profile,
    toolchain,
    traced,
)
from autotune.model.errors import DataError, DeviceLostError, UnavailableError
from autotune.model.kernel import TensorSpec
from autotune.model.space import SearchSpace
from autotune.sites.local import LocalSite
from autotune.testing import BackendContract, Candidates
from autotune.testing.backend_contract import limits_of, measured
from autotune.testing.candidates import BRIEF, INPUTS, LENGTH

OUT = (TensorSpec("out", (LENGTH,)),)
PROGRAMS = {
    "right": "add",
    "exception": "divide",
    "crash": "nrt 1006",
    "abort": "abort",
    "exit": "exit 0",
    "hang": "spin",
    "memory": "nrt 4",
    "output": "print_on",
    "wrong": "copy",
    "unwritten": "nop",
    "later": "later",
    "input": "add\npoke_input",
    "prints": "add\nsay 4",
}


def source(program: str) -> str:
    """Return a kernel that is this program."""
    return f"import nki\n\n\n@nki.jit\ndef add(a, b):\n    return {program!r}\n"


class Sdk:
    """The stand-ins, and what they have noted."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.state.mkdir()
        self.pythons = neuronx.install(folder)

    def backend(self, **settings: object) -> NeuronBackend:
        """Return the backend with both interpreters."""
        given = {
            "target": "trn2",
            "compile_python": self.pythons["compiles"],
            "run_python": self.pythons["runs"],
        }
        return NeuronBackend(**{**given, **settings})  # type: ignore[arg-type]

    def candidates(self, programs: Mapping[str, str], **settings: object) -> Candidates:
        """Return candidates of the backend."""
        return Candidates(self.backend(**settings), {name: source(text) for name, text in programs.items()})

    @property
    def compiled(self) -> int:
        """How often neuronx-cc was called."""
        path = self.state / "compiled"
        return path.stat().st_size if path.exists() else 0


@pytest.fixture(scope="module")
def sdk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sdk]:
    """Install the stand-ins."""
    made = Sdk(tmp_path_factory.mktemp("neuronx"))
    backend._logical.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{Path(made.pythons['runs']).parent}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("NEURONX_STATE", str(made.state))
        patch.setenv("XDG_CACHE_HOME", str(made.state / "cache"))
        backend._kept_neffs.cache_clear()
        yield made
    for each in (backend._logical, backend._kept_neffs):
        each.cache_clear()


class TestNeuron(BackendContract):
    """One core of the stand-in."""

    @pytest.fixture(scope="class")
    @classmethod
    def candidates(cls, sdk: Sdk) -> Candidates:
        """Return kernels."""
        sources = {**{name: source(text) for name, text in PROGRAMS.items()}, "compile_error": "def add(:"}
        return Candidates(sdk.backend(), sources, fault=source("nrt 101"))


# -- compiling


def compiled(
    sdk: Sdk, text: str, folder: Path, entry: str = "add", **settings: object
) -> tuple[int, str, Path]:
    """Run the backend's command as the tuner does; return exit code, what it printed, and the folder."""
    build = sdk.backend(**settings).build(text, entry, INPUTS.specs, INPUTS.specs[:1], folder)
    part = Path(build.part)
    part.mkdir(parents=True)
    done = subprocess.run(
        build.command,
        input=build.source,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return done.returncode, done.stdout, part


def test_a_neff_and_its_description_are_all_that_is_left(sdk: Sdk, tmp_path: Path) -> None:
    code, log, part = compiled(sdk, source("add"), tmp_path, lnc=1, options=("--fast",))
    assert (0, "") == (code, log)
    assert ["kernel.json", "kernel.neff", "kernel.py"] == sorted(path.name for path in part.iterdir())
    about = json.loads((part / "kernel.json").read_text())
    assert {"target": "trn2", "lnc": 1, "options": ["--fast"]} == {
        name: about[name] for name in ("target", "lnc", "options")
    }
    made = json.loads((part / "kernel.neff").read_text())
    assert ("trn2", 1, [["float32", [1000]]] * 2) == (made["target"], made["lnc"], made["inputs"])


def test_a_neff_outlives_a_run(sdk: Sdk, tmp_path: Path) -> None:
    text = source("add\nadd\nadd\nadd")
    code, log, part = compiled(sdk, text, tmp_path / "one")
    before = sdk.compiled
    again, told, other = compiled(sdk, text, tmp_path / "two")
    assert (0, "", 0, before) == (code, log, again, sdk.compiled)
    assert told.startswith(f"compiled before: {sdk.state}/cache/autotune-programs/neffs/")
    assert (part / "kernel.neff").read_text() == (other / "kernel.neff").read_text()
    compiled(sdk, text, tmp_path / "three", lnc=1)
    assert before + 1 == sdk.compiled


def test_only_the_newest_neffs_are_kept(tmp_path: Path) -> None:
    for place in range(neuron_compile.KEPT + 3):
        (tmp_path / "kept" / str(place)).mkdir(parents=True)
        os.utime(tmp_path / "kept" / str(place), (place, place))
    for name in neuron_compile.MADE:
        (tmp_path / name).touch()
    neuron_compile._keep(tmp_path, tmp_path / "kept/new")
    left = {path.name for path in (tmp_path / "kept").iterdir()}
    assert (neuron_compile.KEPT, True, set()) == (len(left), "new" in left, {"0", "1", "2", "3"} & left)


@pytest.mark.parametrize(
    ("said", "internal"),
    [
        ("neuronx-cc failed with exit code 70", True),
        ("Command '...' returned non-zero exit status 70.", True),
        ("returncode=70", True),
        ("failed with 70", True),
        ("exit code 701", False),
        ("NameError: name 'x' is not defined", False),
        ("exit code 70\nNCC_EVRF001", False),
        ("exit status 70: Out of memory in psum", False),
    ],
)
def test_exit_code_70_without_a_reason_is_the_compilers_own(said: str, internal: bool) -> None:
    assert internal == neuron_compile._is_internal(1, said)


def test_a_kernel_is_launched_for_as_many_cores_as_a_logical_one_has(sdk: Sdk, tmp_path: Path) -> None:
    *_, part = compiled(sdk, source("add"), tmp_path, lnc=2)
    assert 2 == json.loads((part / "kernel.neff").read_text())["lnc"]


def test_a_source_may_name_its_kernel_and_its_config(sdk: Sdk, tmp_path: Path) -> None:
    text = """\
        import nki

        @nki.jit
        def other(a, b, tiles):
            return "add\\n" * tiles

        KERNEL = other
        CONFIG = {"tiles": 3}
    """
    *_, part = compiled(sdk, textwrap.dedent(text), tmp_path)
    assert "add\nadd\nadd\n" == json.loads((part / "kernel.neff").read_text())["program"]


@pytest.mark.parametrize(
    ("program", "code", "calls", "status", "message"),
    [
        ("flaky", 0, 2, None, ""),
        ("internal", 70, 2, Status.COMPILE_ERROR, "exit code 70 (twice)"),
        ("broken", 1, 1, Status.COMPILE_ERROR, "exit code -6"),
        ("sbuf", 1, 1, Status.OUT_OF_MEMORY, "Out of memory in sbuf: 229,376 bytes"),
        ("ncc", 1, 1, Status.COMPILE_ERROR, "NCC_EVRF001] Operator iota is not supported"),
    ],
)
def test_what_the_compiler_says_decides_whether_it_is_tried_twice(
    program: str, code: int, calls: int, status: Status | None, message: str, sdk: Sdk, tmp_path: Path
) -> None:
    before = sdk.compiled + sdk.compiled % 2
    (sdk.state / "compiled").write_text("." * before)
    found, log, _ = compiled(sdk, source(program), tmp_path)
    assert (code, calls) == (found, sdk.compiled - before), log
    told = sdk.backend().compile_failure(log)
    assert status == (told and told[0])
    assert message in (told[1] if told else "")


def test_a_compile_failure_is_recorded_in_the_compilers_words(sdk: Sdk) -> None:
    candidates = sdk.candidates({"right": "add", "full": "sbuf", "wrong": "ncc"})
    limits = limits_of(candidates)
    with LocalSite(candidates.kernel(), INPUTS, candidates.backend, BRIEF, limits, 2) as site:
        outcomes = {name: site.build(text) for name, text in candidates.sources.items()}
        ended = {name: future.result() for name, future in outcomes.items()}
    assert {
        "right": Status.OK, "full": Status.OUT_OF_MEMORY, "wrong": Status.COMPILE_ERROR,
    } == {name: outcome.status for name, outcome in ended.items()}  # fmt: skip
    assert ended["full"].message.startswith("Out of memory in sbuf")


def test_all_that_decides_a_neff_is_in_its_name(sdk: Sdk, tmp_path: Path) -> None:
    def name(entry: str = "add", **settings: object) -> str:
        made = sdk.backend(**settings).build("", entry, INPUTS.specs, INPUTS.specs[:1], tmp_path)
        return made.artifact.folder

    names = [name(), name("other"), name(lnc=1), name(target="trn3"), name(options=("-O1",))]
    assert (name(), len(names)) == (names[0], len({*names}))


# -- the identity, and what is missing


def test_the_fingerprint_has_the_versions_of_both_halves(sdk: Sdk) -> None:
    found = sdk.backend(lnc=1).fingerprint()
    assert "nki 0.6.0, neuronx-cc 2.27.1, nrtpy 2.32.0, runtime unknown, driver unknown" == found["version"]
    assert ("trn2", "1", "unknown") == (found["target"], found["lnc"], found["device"])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"compile_python": "runs"}, "has no nki of the Neuron SDK; set AUTOTUNE_NEURON_COMPILE_PYTHON"),
        ({"run_python": "compiles"}, "has neither nrtpy nor spike; set AUTOTUNE_NEURON_RUN_PYTHON"),
        ({"run_python": "/no/python"}, "no interpreter /no/python; set AUTOTUNE_NEURON_RUN_PYTHON"),
        ({"target": ""}, "target unknown: NeuronBackend(target=) is one of trn1, trn2, trn3"),
    ],
)
def test_what_is_missing_is_named_with_what_to_do(settings: Mapping[str, str], told: str, sdk: Sdk) -> None:
    given = {name: sdk.pythons.get(value, value) for name, value in settings.items()}
    with pytest.raises(UnavailableError, match=r"^[^\n]+$") as raised:
        sdk.backend(**given).fingerprint()
    assert told in str(raised.value)


def test_the_host_says_what_it_is(tmp_path: Path) -> None:
    assert ("unknown", "unknown") == (toolchain.instance_type(tmp_path), toolchain.driver_version(tmp_path))
    family = (
        tmp_path / "sys/devices/virtual/neuron_device/neuron0/neuron_core0/info/architecture/instance_type"
    )
    for path, text in (
        (family, "Trn1\n"),
        (tmp_path / "sys/module/neuron/version", "2.24.7.0\n"),
        (tmp_path / "sys/devices/virtual/dmi/id/product_name", "trn2.48xlarge\n"),
    ):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    assert ("trn2.48xlarge", "2.24.7.0") == (
        toolchain.instance_type(tmp_path),
        toolchain.driver_version(tmp_path),
    )
    (tmp_path / "sys/devices/virtual/dmi/id/product_name").write_text("KVM\n")
    assert "trn1" == toolchain.instance_type(tmp_path)


def test_importing_the_backend_touches_nothing_and_needs_no_numpy() -> None:
    code = (
        "import sys, autotune.backends.neuron; print(*sorted({'nki', 'nrtpy', 'spike'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    assert "\n" == done.stdout
    assert NEVER_RUN == NeuronBackend().caution()


# -- cores


def test_a_core_is_set_before_the_runtime_starts(sdk: Sdk) -> None:
    candidates = sdk.candidates({"right": "add"}, lnc=1, exec_timeout_s=7)
    limits = limits_of(candidates)
    with LocalSite(candidates.kernel(), INPUTS, candidates.backend, BRIEF, limits, 1, device="11") as site:
        assert Status.OK is measured(site, candidates.sources["right"]).status
    assert ["11", "1", "7"] == json.loads((sdk.state / "environment11").read_text())
    with LocalSite(candidates.kernel(), INPUTS, sdk.backend(), BRIEF, limits, 1, device="3") as site:
        assert Status.OK is measured(site, candidates.sources["right"]).status
    assert ["3", "2", "28"] == json.loads((sdk.state / "environment3").read_text())


def test_all_cores_search_together(sdk: Sdk, tmp_path: Path) -> None:
    candidates = sdk.candidates({f"right{i}": "\n".join(["add"] * (i + 1)) for i in range(3)})
    found = tune(
        candidates.kernel(),
        INPUTS,
        backend=candidates.backend,
        cache_dir=tmp_path,
        devices="0,1",
        timing=BRIEF,
    )
    assert found.best is not None
    assert {"source": "right0"} == found.best.config
    place = found.folder / found.best.path
    told = "profile of the best config: 1.0 us, MFU 90.9%, tensor active 25.0%, vector active 25.0%"
    assert [NEVER_RUN, f"{told}; the trace is {place}/profile.ntff"] == list(found.notes)
    assert {"kernel.neff", "profile.ntff", "neuron_profile.json"} <= {path.name for path in place.iterdir()}
    assert [0.002, 0.003] == [trial.metrics.median_ms for trial in found.trials[:2] if trial.metrics]
    assert all((sdk.state / f"core{number}").exists() for number in (0, 1))


def test_a_core_that_is_in_use_is_tried_again(sdk: Sdk) -> None:
    candidates = sdk.candidates({"right": "add", "busy": "busy", "held": "nrt 1005"})
    limits = replace(limits_of(candidates), run_s=20)
    with LocalSite(candidates.kernel(), INPUTS, candidates.backend, BRIEF, limits, 1, device="5") as site:
        assert Status.OK is measured(site, candidates.sources["busy"]).status
        with pytest.raises(DeviceLostError, match=r"NC_BUSY\(1005\).*\(tried 4 times\)"):
            measured(site, candidates.sources["held"])


def test_a_script_measures_nki_kernels_where_the_sdk_is(
    sdk: Sdk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = script.Case(sdk.candidates({"right": "add"}).kernel(), INPUTS)
    flags = script.parser("test", budget=1).parse_args(
        ["--backend", "nki", "--cache-dir", str(tmp_path), "--json"]
    )
    monkeypatch.setattr(toolchain, "instance_type", lambda: "trn2.48xlarge")
    monkeypatch.setenv(toolchain.COMPILE_PYTHON, sdk.pythons["compiles"])
    assert "has neither nrtpy nor spike; set AUTOTUNE_NEURON_RUN_PYTHON to" in NeuronBackend().why_not()
    monkeypatch.setenv(toolchain.RUN_PYTHON, sdk.pythons["runs"])
    code = script.main(flags, [case])
    out, err = capsys.readouterr()
    (found,) = json.loads(out)["workloads"]
    assert (0, "neuron", {"ok": 1}, NEVER_RUN) == (
        code, found["backend"], found["statuses"], err.splitlines()[0],
    )  # fmt: skip


BOTH = """\
import nki
import nki.isa as nisa
import nki.language as nl


@nki.jit
def add(a, b, rows):
    if hasattr(nki, "STANDS_IN"):
        return "add"
    out = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
    tiles = []
    for each in (a, b):
        tiles.append(nl.ndarray((rows, 1000 // rows), dtype=a.dtype, buffer=nl.sbuf))
        nisa.dma_copy(tiles[-1], each.reshape((rows, 1000 // rows)))
    nisa.tensor_tensor(tiles[0], tiles[0], tiles[1], nl.add)
    nisa.dma_copy(out.reshape((rows, 1000 // rows)), tiles[0])
    return out


KERNEL = add
"""


def test_what_the_model_refuses_costs_no_device_time(
    sdk: Sdk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel = replace(
        sdk.candidates({"right": "add"}).kernel(),
        generators={"nki": lambda config, *_: f"{BOTH}CONFIG = {dict(config)!r}\n"},
        space=lambda _specs: SearchSpace({"rows": (1, 250, 125)}),
    )
    flags = script.parser("test", budget=0).parse_args(["--backend", "nki", "--cache-dir", str(tmp_path)])
    monkeypatch.setattr(toolchain, "instance_type", lambda: "trn2.48xlarge")
    for name, half in ((toolchain.COMPILE_PYTHON, "compiles"), (toolchain.RUN_PYTHON, "runs")):
        monkeypatch.setenv(name, sdk.pythons[half])
    before = sdk.compiled
    assert 0 == script.main(flags, [script.Case(kernel, INPUTS)])
    told = capsys.readouterr().err
    trials = json.loads(next(tmp_path.glob("add/*/perf_metrics.json")).read_text())["trials"]
    ended = {each["config"]["rows"]: (each["order"], each["status"]) for each in trials}
    assert {125: (0, "ok"), 1: (1, "ok"), 250: (2, "invalid")} == ended
    assert "the model against 2 measured configs: off by" in told
    assert " us measured (" in told
    assert sdk.compiled - before <= 2 * 2 + 1, (
        "each is built, the finalists again, and the best for its profile"
    )


CHIP = {"neuron_device": 0, "nc_count": 4, "neuroncore_ids": [0, 1, 2, 3], "neuron_processes": []}


def test_cores_that_others_hold_are_no_devices(sdk: Sdk) -> None:
    assert [*"01234567"] == [*sdk.backend().devices()]
    assert 16 == len(sdk.backend(lnc=1).devices())
    sleeper = [sys.executable, "-c", "input()"]
    env = {**os.environ, "NEURON_RT_VISIBLE_CORES": "1,2-3"}
    with subprocess.Popen(sleeper, stdin=subprocess.PIPE, env=env) as known:
        # The environment is the new program's once it can be read with the variable in it.
        while b"NEURON_RT_VISIBLE_CORES" not in Path(f"/proc/{known.pid}/environ").read_bytes():
            pass
        holders = {
            "0": [{"pid": known.pid, "command": "train.py"}],
            "1": [{"pid": 1 << 30, "command": "serve"}],
        }
        (sdk.state / "held.json").write_text(json.dumps(holders))
        try:
            assert ("0",) == sdk.backend().devices()
        finally:
            (sdk.state / "held.json").unlink()
            known.communicate(b"\n")


def test_the_message_says_who_holds_the_cores() -> None:
    found = cores.cores_of([{**CHIP, "neuron_processes": [{"pid": 1 << 30, "command": "train.py --all"}]}])
    with pytest.raises(UnavailableError) as raised:
        cores.usable(found, "")
    assert f"all 4 NeuronCores are held: 0 by process {1 << 30} (train.py --all); 1 by" in str(raised.value)
    free = cores.cores_of([CHIP])
    assert [1, 3] == [core.number for core in cores.usable(free, "1,3")]
    with pytest.raises(UnavailableError, match="names no core of this machine, which has 4"):
        cores.usable(free, "17")


@pytest.mark.parametrize(
    ("text", "numbers"), [("", []), ("3", [3]), ("0-2,7", [0, 1, 2, 7]), ("all", []), ("1-", [1])]
)
def test_visible_cores(text: str, numbers: list[int]) -> None:
    assert numbers == sorted(cores.visible_cores(text))


def test_a_machine_without_cores_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="no neuron-ls: this machine has no Neuron tools"):
        NeuronBackend().devices()
    for text, told in (
        ("echo oops >&2; exit 3", "neuron-ls failed with exit code 3: oops"),
        ("echo '[]'", "neuron-ls lists no NeuronCore"),
        ("echo '{}}'", "printed something unknown"),
        ("echo '[{}]'", "printed something unknown"),
    ):
        (tmp_path / "neuron-ls").write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "neuron-ls").chmod(0o755)
        with pytest.raises(UnavailableError, match=told):
            NeuronBackend().devices()


# -- one open core


@contextlib.contextmanager
def opened(sdk: Sdk, **settings: object) -> Iterator[device.NeuronDevice]:
    """Open a core as the device's process does."""
    values = [(spec, np.full(spec.shape, 2, np.float32)) for spec in INPUTS.specs]
    with traced._shared(values, OUT) as tensors:
        core = sdk.backend(**settings).open("6", tensors[:2], tensors[2:])
        with contextlib.closing(core):
            yield core


def neff(
    folder: Path, program: str, elements: int = LENGTH, in_place: tuple[str, ...] = (), lnc: int = 2
) -> Artifact:
    """Write what the compiler leaves."""
    folder.mkdir()
    about = {"program": program, "inputs": [["float32", [elements]]] * 2}
    (folder / "kernel.neff").write_text(json.dumps(about))
    (folder / "kernel.json").write_text(json.dumps({"lnc": lnc}))
    return Artifact("neuron", "add", str(folder), "kernel.neff", INPUTS.specs, OUT, in_place)


def test_spike_runs_neffs_where_nrtpy_is_not(sdk: Sdk, tmp_path: Path) -> None:
    assert "spike 0.2.0" in sdk.backend(run_python=sdk.pythons["spikes"]).fingerprint()["version"]
    with opened(sdk, run_python=sdk.pythons["spikes"]) as core:
        loaded = core.load(neff(tmp_path / "right", "add\nnop"))
        loaded.poison()
        assert [6000, 6000] == loaded.run(2, 2, cold=True), (
            "each call has two lines, and a part that is traced apart"
        )
        loaded.fetch()
        loaded.unload()


def test_a_neff_that_does_not_fit_is_refused_before_it_is_run(sdk: Sdk, tmp_path: Path) -> None:
    with opened(sdk) as core:
        for name, artifact, told in (
            ("lnc", neff(tmp_path / "lnc", "add", lnc=1), "was compiled for LNC 1, and the core has LNC 2"),
            (
                "size",
                neff(tmp_path / "size", "add", 10),
                "tensor a has 4000 bytes; the NEFF's in_tensor_0 40",
            ),
            ("in place", neff(tmp_path / "place", "add", in_place=("a",)), "and the kernel changes a"),
        ):
            with pytest.raises(Fault, match=re.escape(told)) as raised:
                core.load(artifact)
            assert (Status.ERROR, False) == (raised.value.status, raised.value.fatal), name
        assert core.load(neff(tmp_path / "right", "add"))


def test_an_input_that_was_changed_is_restored(sdk: Sdk, tmp_path: Path) -> None:
    with opened(sdk) as core:
        for program, told in (("poke_input", "wrote to its input a"), ("add", "")):
            loaded = core.load(neff(tmp_path / program, program))
            loaded.run(1, 1, cold=False)
            with pytest.raises(Fault, match=told) if told else contextlib.nullcontext():
                loaded.fetch()
            loaded.unload()


def test_a_core_that_is_in_use_when_it_is_opened_is_tried_again(sdk: Sdk, tmp_path: Path) -> None:
    with (sdk.state / "core6").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        release = threading.Timer(0.9, fcntl.flock, (held, fcntl.LOCK_UN))
        release.start()
        with opened(sdk) as core:
            assert core.load(neff(tmp_path / "right", "add")).run(1, 1, cold=False)
        release.join()


def test_outside_of_a_search_an_order_has_a_limit(sdk: Sdk, tmp_path: Path) -> None:
    with opened(sdk) as core:
        loaded = core.load(neff(tmp_path / "hang", "spin"))
        with pytest.raises(Fault, match=r"did not return within 0\.2 s") as raised, core.limited(0.2):
            loaded.run(1, 1, cold=False)
        assert Status.TIMEOUT is raised.value.status


# -- errors by their numbers


@pytest.mark.parametrize(
    ("code", "status", "fatal"),
    [
        (1, Status.ERROR, True),
        (2, Status.ERROR, False),
        (4, Status.OUT_OF_MEMORY, False),
        (5, Status.TIMEOUT, True),
        (1002, Status.ERROR, False),
        (1003, Status.WRONG_OUTPUT, False),
        (1004, Status.CRASH, True),
        (1006, Status.CRASH, True),
        (1204, Status.TIMEOUT, True),
        (777, Status.ERROR, True),
    ],
)
def test_a_number_of_the_candidate(code: int, status: Status, fatal: bool) -> None:
    fault = errors.of_the_runtime(f"NRT Error NRT_X({code}): Failed", "NrtError", "run")
    assert isinstance(fault, Fault)
    assert (status, fatal, f"NRT Error NRT_X({code}): Failed") == (fault.status, fault.fatal, str(fault))


@pytest.mark.parametrize("code", [6, 101, 1200, 1201, 1202, 1203, 1205])
def test_a_number_of_the_core(code: int) -> None:
    assert isinstance(errors.of_the_runtime(f"NRT Error NRT_X({code})", "NrtError", "run"), DeviceFault)


def test_other_exceptions_are_the_candidates() -> None:
    load = errors.of_the_runtime("NRT Error NRT_HW_ERROR(6): Failed to load", "NrtError", "load")
    assert isinstance(load, Fault) and "may be for another target" in str(load)
    memory = errors.of_the_runtime("", "MemoryError", "run")
    assert isinstance(memory, Fault) and (Status.OUT_OF_MEMORY, "MemoryError") == (memory.status, str(memory))
    assert "busy" == errors.of_the_runtime("NRT Error NRT_EXEC_NC_BUSY(1005)", "NrtError", "run")


# -- peaks


@pytest.mark.parametrize(
    ("target", "logical", "dtype", "gflops", "gbytes_per_s"),
    [
        ("trn1", 1, "bfloat16", 92e3, 272),
        ("trn2", 1, "float32", 20e3, 362.5),
        ("trn2", 2, "bfloat16", 158e3, 725),
        ("trn2", 2, "float8_e4m3", 316e3, 725),
        ("trn3", 1, "float16", 79e3, 528),
    ],
)
def test_a_logical_core_has_the_peaks_of_its_physical_ones(
    target: str, logical: int, dtype: str, gflops: float, gbytes_per_s: float
) -> None:
    found = peaks.roofline(target, logical, dtype)
    assert found is not None
    assert (gflops, gflops, gbytes_per_s) == (
        found.peak_gflops,
        found.sheet_gflops,
        found.bandwidth_gbytes_per_s,
    )


def test_a_dtype_without_a_peak_has_no_roofline() -> None:
    assert peaks.roofline("trn2", 1, "int32") is None


# -- the profiler


SUMMARY = {
    "n_0123": {
        "total_time": 0.000240,
        "mfu_estimated_percent": 0.909,
        "hfu_estimated_percent": 0.93,
        "mbu_estimated_percent": 0.31,
        "tensor_engine_active_time_percent": 0.95,
        "vector_engine_active_time_percent": 0.4,
    },
    "n_4567": {"total_time": 0.000250, "mfu_estimated_percent": -1, "tensor_engine_active_time_percent": 0.9},
}


def test_the_slowest_core_of_a_summary_counts() -> None:
    found = profile.parse(json.dumps(SUMMARY))
    assert (250.0, None, None, None, {"tensor": 0.9}) == (
        found.total_us, found.mfu, found.hfu, found.mbu, found.active,
    )  # fmt: skip
    first = profile.parse(json.dumps({"n_0123": SUMMARY["n_0123"]}))
    assert (240.0, 0.909, 0.93, 0.31) == (first.total_us, first.mfu, first.hfu, first.mbu)
    assert {"tensor": 0.95, "vector": 0.4} == first.active


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"n": {"total_time": "soon"}}', '{"n": {"mfu": 1}}'])
def test_a_summary_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="the profiler's summary is not as documented"):
        profile.parse(text)


def test_a_profile_that_cannot_be_had_is_only_told(sdk: Sdk, tmp_path: Path) -> None:
    candidates = sdk.candidates({"right": "add", "crash": "abort", "wrong": "ncc"})
    values = [(spec, np.ones(spec.shape, np.float32)) for spec in INPUTS.specs]
    told = {
        name: candidates.backend.study(text, "add", values, OUT, tmp_path / name)
        for name, text in candidates.sources.items()
    }
    assert told["right"].startswith("profile of the best config: 1.0 us")
    assert "no profile of the best config: the process that runs NEFFs was killed by SIGABRT" == told["crash"]
    assert told["wrong"].startswith("no profile of the best config: the compiler failed: ")


def test_a_spec_is_told_to_the_compiler_in_one_word() -> None:
    assert "a:bfloat16:2x3" == backend._told(TensorSpec("a", (2, 3), "bf16"))
