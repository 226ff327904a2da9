"""A network that is slow or breaks: a proxy in front of a server on this machine.

Both the benchmark of the loop (delay) and the fault suite (cuts, stalls, corruption at a chosen byte) use it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

Direction = Literal["up", "down"]
READ_BYTES = 64 * 1024
WINDOW_CHUNKS = 256


@dataclass(frozen=True)
class Fault:
    """What happens once, to the byte at `at` since it was set; that byte never arrives as it was.

    Args:
        kind: `cut` closes every connection, `stall` lets nothing more pass on any, `corrupt` flips a bit.
        direction: `up` is from the client to the server.
        at: how many bytes pass in that direction before.
    """

    kind: Literal["cut", "stall", "corrupt"]
    direction: Direction
    at: int


class Proxy:
    """Forward connections on `port` to a server on 127.0.0.1; used as a context manager.

    Args:
        target: the server's port.
        delay_s: how long each byte travels, in either direction: half a round trip.
    """

    def __init__(self, target: int, delay_s: float = 0) -> None:
        """Name the server; nothing listens yet."""
        self.target, self.delay_s = target, delay_s
        self.passed: dict[Direction, int] = {"up": 0, "down": 0}
        self.port = 0
        self.struck = threading.Event()
        self._faults: list[Fault] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._open: asyncio.Event
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Proxy:
        """Listen."""
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close everything."""
        self._server.close()
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def set(self, *faults: Fault) -> None:
        """Arm faults: each counts its bytes from the one before; `struck` is set with the last."""
        self.passed.update({"up": 0, "down": 0})
        self.struck.clear()
        self._faults = list(faults)

    def cut(self) -> None:
        """Close every connection now."""
        self._do(self._cut())

    def heal(self) -> None:
        """Let bytes pass again on new connections; those that were stalled stay dead."""
        self._do(self._heal())

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _listen(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _cut(self) -> None:
        ending = [task for task in self._connections if task is not asyncio.current_task()]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    async def _heal(self) -> None:
        await self._cut()
        self._open.set()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        ends = [writer]
        try:
            there, to_server = await asyncio.open_connection("127.0.0.1", self.target)
            ends.append(to_server)
            pumps = [self._pump("up", reader, to_server), self._pump("down", there, writer)]
            await asyncio.gather(*pumps)
        except (OSError, asyncio.CancelledError):
            pass  # either end is gone, or the network is
        finally:
            self._connections.discard(task)
            for end in ends:
                end.transport.abort()

    async def _pump(
        self, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Forward one direction; what is read waits its delay in a queue, so that bandwidth stays."""
        on_its_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(WINDOW_CHUNKS)
        arriving = asyncio.ensure_future(self._deliver(on_its_way, writer))
        try:
            while data := await reader.read(READ_BYTES):
                await on_its_way.put((self._loop.time() + self.delay_s, self._pass(direction, data)))
                await self._open.wait()
            await on_its_way.put((self._loop.time() + self.delay_s, b""))
            await arriving
        finally:
            arriving.cancel()

    async def _deliver(
        self, on_its_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
    ) -> None:
        while True:
            due, data = await on_its_way.get()
            if (early_s := due - self._loop.time()) > 0:
                await asyncio.sleep(early_s)
            if not data:
                with suppress(OSError):
                    writer.write_eof()
                return
            writer.write(data)
            await writer.drain()

    def _pass(self, direction: Direction, data: bytes) -> bytes:
        """Count bytes, and strike where the fault's byte is among them: what is before it still passes."""
        fault, at = next(iter(self._faults), None), -1
        if fault is not None and fault.direction == direction:
            at = fault.at - self.passed[direction]
        self.passed[direction] += len(data)
        if fault is None or not 0 <= at < len(data):
            return data
        del self._faults[0]
        self.passed.update({"up": 0, "down": 0})
        if not self._faults:
            self.struck.set()
        if fault.kind == "corrupt":
            return data[:at] + bytes([data[at] ^ 0x20]) + data[at + 1 :]
        if fault.kind == "stall":
            self._open.clear()
        else:
            self._loop.create_task(self._cut())
        return data[:at]
