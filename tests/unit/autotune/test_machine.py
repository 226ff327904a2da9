"""What is known of the machine, and what is kept for it."""

from __future__ import annotations

import os
import platform
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from autotune.machine.cpu import built_program, cpu_name, find_compiler, program_folder, roofline
from autotune.model.errors import UnavailableError
from autotune.model.roofline import Roofline

HELLO = '#include <stdio.h>\nint main(void) { puts("hello"); return 0; }\n'


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder for our own programs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return tmp_path / "xdg" / "autotune-programs"


def test_the_cpu_is_named_with_its_architecture() -> None:
    assert cpu_name().split()[0] == platform.machine()


def test_the_program_folder_is_where_the_xdg_specification_says(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache == program_folder()
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    monkeypatch.setenv("HOME", "/home/ada")
    assert Path("/home/ada/.cache/autotune-programs") == program_folder()


def test_a_program_of_ours_is_compiled_once_for_each_set_of_flags(cache: Path, tmp_path: Path) -> None:
    text = tmp_path / "hello.c"
    text.write_text(HELLO)
    first, again = (built_program(text, find_compiler(), ("-O1",)) for _ in range(2))
    other = built_program(text, find_compiler(), ("-O2",))
    assert (first, 2, cache) == (again, len(list(first.parent.iterdir())), other.parent)


def test_where_the_cache_cannot_be_written_the_temporary_folder_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "xdg").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    text = tmp_path / "hello.c"
    text.write_text(HELLO)
    assert tmp_path / f"autotune-{os.getuid()}" == built_program(text, find_compiler(), ()).parent


@pytest.fixture
def squatted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder in TMPDIR that is used if the cache cannot be written; a program lies in it."""
    (tmp_path / "xdg").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    folder = tmp_path / "tmp" / f"autotune-{os.getuid()}"
    assert folder == built_program(hello(tmp_path), find_compiler(), ()).parent
    return folder


def hello(folder: Path) -> Path:
    (folder / "hello.c").write_text(HELLO)
    return folder / "hello.c"


def make_link(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to("elsewhere")


SQUATTED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a link": (make_link, "is a link, or another user's: remove it"),
    "the world can write": (lambda folder: folder.chmod(0o777), "other users can write to"),
    "the group can write": (lambda folder: folder.chmod(0o770), "other users can write to"),
    "the world can write above": (lambda folder: folder.parent.chmod(0o777), "other users can write to"),
}
if os.getuid() == 0:
    SQUATTED["another user's"] = lambda folder: os.chown(folder, 65534, 65534), "or another user's"
    SQUATTED["another user's above"] = (
        lambda folder: os.chown(folder.parent, 1, 1),
        "other users can write to",
    )


@pytest.mark.parametrize("how", SQUATTED)
def test_a_folder_that_another_user_could_have_filled_is_not_used(
    squatted: Path, tmp_path: Path, how: str
) -> None:
    squat, message = SQUATTED[how]
    squat(squatted)
    before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}

    with pytest.raises(UnavailableError, match=f"nowhere to keep hello: .*{message}"):
        built_program(hello(tmp_path), find_compiler(), ())

    after = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert {tmp_path / "hello.c"} == {path for path in after if after[path] != before.get(path)}


def test_a_sticky_folder_that_all_share_is_as_good_as_tmp(squatted: Path, tmp_path: Path) -> None:
    squatted.parent.chmod(0o1777)

    assert squatted == built_program(hello(tmp_path), find_compiler(), ()).parent


@pytest.mark.parametrize("how", ["a link", "all can write"])
def test_a_program_that_another_user_could_have_made_is_made_anew(
    squatted: Path, tmp_path: Path, how: str
) -> None:
    (program,) = squatted.iterdir()
    if how == "a link":
        (tmp_path / "theirs").write_text("#!/bin/sh\necho theirs\n")
        (tmp_path / "theirs").chmod(0o755)
        program.unlink()
        program.symlink_to(tmp_path / "theirs")
    else:
        program.write_text("#!/bin/sh\necho theirs\n")
        program.chmod(0o777)

    assert program == built_program(hello(tmp_path), find_compiler(), ())
    assert b"hello\n" == subprocess.run([program], stdout=subprocess.PIPE, check=True).stdout
    assert 0o700 == stat.S_IMODE(program.lstat().st_mode)


def test_a_compiler_that_does_not_work_is_shown_with_what_it_said(cache: Path, tmp_path: Path) -> None:
    text = tmp_path / "broken.c"
    text.write_text("int main(void) { return nothing; }\n")
    with pytest.raises(UnavailableError, match=r"the C compiler does not work: (?s:.*)nothing"):
        built_program(text, find_compiler(), ())
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_the_roofline_is_measured_once_and_kept(cache: Path) -> None:
    single, double = roofline(), roofline("float64")
    assert single is not None
    assert double is not None
    assert single.peak_gflops > double.peak_gflops > 0.1
    assert single.bandwidth_gbytes_per_s == pytest.approx(double.bandwidth_gbytes_per_s)
    assert double.bandwidth_gbytes_per_s > 0.1
    (kept,) = cache.rglob(f"roofline-*.{os.cpu_count()}.txt")
    kept.write_text("100.0 50.0 20.0\n")
    limits = Roofline(100.0, 20.0, dtype="float32"), Roofline(50.0, 20.0, dtype="float64")
    assert limits == (roofline(), roofline("float64"))


@pytest.mark.skipif(os.cpu_count() == 1, reason="there is no second core")
def test_each_number_of_cores_has_a_roofline_of_its_own(cache: Path) -> None:
    assert None not in (roofline(cores=1), roofline(cores=2))
    assert ["1", "2"] == sorted(path.name.split(".")[-2] for path in cache.rglob("roofline-*.txt"))


def test_without_a_compiler_there_is_no_roofline(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-cc")
    assert (None, False) == (roofline(), cache.exists())
