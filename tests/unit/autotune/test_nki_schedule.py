"""The schedule of a trace: every time is worked out by hand."""

from __future__ import annotations

import pytest

from autotune.nki.timing.costs import ENGINES
from autotune.nki.timing.critical import bound_by, chain, steps
from autotune.nki.trace import PSUM, SBUF
from tests.unit.autotune.nki_traces import Timed


def test_one_engine_works_in_order() -> None:
    kernel = Timed()
    for ns in (10, 20, 30):
        kernel.do("vector", ns, writes=[f"tile{ns}"])
    done = kernel.run()
    assert [0, 10, 30] == done.start
    assert 60 == done.ns
    assert 60 == done.busy[ENGINES.index("vector")]


def test_engines_work_side_by_side() -> None:
    kernel = Timed()
    kernel.do("vector", 10, writes=["a"])
    kernel.do("scalar", 30, writes=["b"])
    assert 30 == kernel.run().ns


def test_another_engine_waits_for_the_result_and_its_signal() -> None:
    kernel = Timed()
    kernel.do("load", 100, writes=["a"], done=50)
    kernel.do("tensor", 10, reads=["a"], writes=["b"], done=5, signal=7)
    kernel.do("vector", 20, reads=["b"], writes=["c"], done=3, signal=7)
    done = kernel.run()
    assert [0, 150, 172] == done.start
    assert 195 == done.ns  # the result is there, 3 ns after the last element


def test_an_engine_waits_for_its_own_result_without_a_signal() -> None:
    kernel = Timed()
    kernel.do("vector", 10, writes=["a"], done=5, signal=7)
    kernel.do("vector", 10, reads=["a"], writes=["b"], done=5, signal=7)
    assert [0, 15] == kernel.run().start


@pytest.mark.parametrize(
    ("buffers", "start_of_loads", "ns"),
    [
        (1, [0, 140, 280], 420),  # each load waits for the matmul that reads the buffer
        (2, [0, 100, 200], 340),  # the third one waits for the first matmul, which is through at 140
        (3, [0, 100, 200], 340),
    ],
)
def test_a_second_buffer_lets_loads_run_ahead(buffers: int, start_of_loads: list[float], ns: float) -> None:
    kernel = Timed()
    for trip in range(3):
        kernel.do("load", 100, writes=[f"buffer{trip % buffers}"])
        kernel.do("tensor", 40, reads=[f"buffer{trip % buffers}"], writes=["sum"])
    done = kernel.run()
    assert start_of_loads == done.start[::2]
    assert ns == done.ns


def test_compute_bound_with_two_buffers() -> None:
    kernel = Timed()
    for trip in range(4):
        kernel.do("load", 40, writes=[f"buffer{trip % 2}"])
        kernel.do("tensor", 100, reads=[f"buffer{trip % 2}"], writes=["sum"])
    done = kernel.run()
    assert [0, 40, 140, 240] == done.start[::2]  # from the third on: once a matmul has left the buffer
    assert 440 == done.ns


def test_latency_bound_with_one_buffer() -> None:
    kernel = Timed()
    for _ in range(3):
        kernel.do("load", 10, writes=["buffer"], done=500)
        kernel.do("tensor", 20, reads=["buffer"], writes=["sum"], signal=5)
    done = kernel.run()
    assert 3 * (10 + 500 + 20) + 2 * 5 == done.ns
    trace = kernel.recorder.trace
    assert "DMA latency" == bound_by(steps(trace, done, chain(done)))


def test_a_write_waits_for_the_readers_of_other_engines() -> None:
    kernel = Timed()
    kernel.do("vector", 10, writes=["a"])
    kernel.do("store", 100, reads=["a"])
    kernel.do("scalar", 30, reads=["a"])
    kernel.do("vector", 10, writes=["a"])
    assert 110 == kernel.run().start[-1]


def test_a_write_waits_for_the_last_write_of_another_engine() -> None:
    kernel = Timed()
    kernel.do("gpsimd", 50, writes=["a"], signal=4)
    kernel.do("vector", 10, writes=["a"])
    assert [0, 54] == kernel.run().start


@pytest.mark.parametrize(("part", "start"), [("a:0-4", 50), ("a:3-5", 50), ("a:4-8", 0), ("a", 50)])
def test_only_shared_bytes_make_an_instruction_wait(part: str, start: float) -> None:
    kernel = Timed()
    kernel.do("gpsimd", 50, writes=["a:0-4"])
    kernel.do("vector", 10, reads=[part], writes=["b"])
    assert start == kernel.run().start[1]


def test_a_matmul_that_adds_does_not_wait_for_the_last_one() -> None:
    kernel = Timed()
    for _ in range(3):
        kernel.do("tensor", 10, writes=["sum"], done=50)
    assert [0, 10, 20] == kernel.run().start


class TestDmaQueues:
    def test_a_load_does_not_wait_for_a_store_that_waits(self) -> None:
        kernel = Timed()
        kernel.do("vector", 500, writes=["result"])
        kernel.do("store", 10, reads=["result"])
        kernel.do("load", 10, writes=["next"])
        assert [0, 500, 0] == kernel.run().start

    def test_what_stands_first_in_the_program_is_served_first(self) -> None:
        kernel = Timed()
        kernel.do("vector", 40, writes=["result"])
        kernel.do("store", 30, reads=["result"])  # 40 to 70
        kernel.do("load", 100, writes=["next"])  # 0 to 40, and 70 to 130
        done = kernel.run()
        assert [40, 70, 130] == done.end

    def test_a_store_behind_a_load_gets_what_is_left(self) -> None:
        kernel = Timed()
        kernel.do("load", 100, writes=["next"])
        kernel.do("vector", 40, writes=["result"])
        kernel.do("store", 30, reads=["result"])
        done = kernel.run()
        assert 40 == done.start[2]
        assert 130 == done.end[2]

    def test_nobody_gets_the_same_bandwidth_twice(self) -> None:
        kernel = Timed()
        for trip in range(20):
            kernel.do("load", 7, writes=[f"in{trip % 3}"], done=3)
            kernel.do("vector", 2 + trip % 5, reads=[f"in{trip % 3}"], writes=[f"out{trip % 2}"])
            kernel.do("store", 5, reads=[f"out{trip % 2}"])
        done = kernel.run()
        assert 20 * (7 + 5) <= max(done.end) < 20 * (7 + 5) + 20


class TestRoom:
    def test_a_third_tile_takes_the_place_of_the_first(self) -> None:
        kernel = Timed()
        for number in range(3):
            kernel.tensor(f"tile{number}", 8 * 1024, PSUM)
            kernel.do("tensor", 10, writes=[f"tile{number}"])
            kernel.do("vector", 100, reads=[f"tile{number}"])
        assert [0, 10, 110] == kernel.run().start[::2]

    def test_with_room_for_all_nobody_waits(self) -> None:
        kernel = Timed()
        for number in range(3):
            kernel.tensor(f"tile{number}", 4 * 1024, PSUM)
            kernel.do("tensor", 10, writes=[f"tile{number}"])
            kernel.do("vector", 100, reads=[f"tile{number}"])
        assert [0, 10, 20] == kernel.run().start[::2]

    def test_tiles_that_the_kernel_puts_at_one_address_wait_for_each_other(self) -> None:
        kernel = Timed()
        for number, start in enumerate((0, 64, 32)):
            kernel.tensor(f"tile{number}", 64, SBUF, start)
            kernel.do("load", 10, writes=[f"tile{number}"])
            kernel.do("vector", 100, reads=[f"tile{number}"])
        assert [0, 10, 210] == kernel.run().start[::2]  # the third one lies on both


def test_the_critical_path_names_the_lines_that_the_time_is_made_of() -> None:
    kernel = Timed()
    for _ in range(3):
        kernel.do("load", 100, writes=["buffer"], done=50)
        kernel.do("tensor", 400, reads=["buffer"], writes=["sum"], signal=10)
    kernel.do("gpsimd", 700, writes=["aside"])
    done = kernel.run()
    summed = steps(kernel.recorder.trace, done, chain(done))
    assert [("tensor", 3, 1.2, 0.02), ("load", 3, 0.3, 0.15)] == [
        (step.lane, step.times, round(step.work_us, 6), round(step.wait_us, 6)) for step in summed
    ]
    assert done.ns / 1e3 == pytest.approx(sum(step.work_us + step.wait_us for step in summed))
    assert "tensor" == bound_by(summed)
