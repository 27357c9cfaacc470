"""JSON Lines in files and on standard output: whole lines, private, rotated, on the disk."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from broker.adapters.sinks.files import FileSink, Rotation, StdoutSink
from broker.adapters.sinks.sink import DeliveryFailed
from broker.audit.verify import Verifier
from tests.sinks.conftest import make_batch, until

ROOM = Rotation(max_bytes=10_000_000, keep=3)


def numbers(path: Path) -> list[int]:
    return [json.loads(json.loads(line)["record"])["seq"] for line in path.read_text().splitlines()]


def modes(folder: Path) -> dict[str, int]:
    return {one.name: stat.S_IMODE(one.stat().st_mode) for one in folder.iterdir()}


async def test_a_file_is_the_brokers_alone_and_verifies(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    sink = FileSink("f", path, ROOM)
    await sink.deliver(make_batch(1, 2))
    await sink.deliver(make_batch(3, 2))
    await sink.aclose()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert numbers(path) == [1, 2, 3, 4]
    # An export's line, which the verifier reads as one.
    assert Verifier().feed(path.read_bytes().splitlines(keepends=True)[0]) is not None


async def test_rotation_keeps_the_newest_and_loses_no_line(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    batch_bytes = len(make_batch(1, 2, pad=2000).json_lines)
    sink = FileSink("f", path, Rotation(max_bytes=2 * batch_bytes + 10, keep=2))
    for first in range(1, 15, 2):
        await sink.deliver(make_batch(first, 2, pad=2000))
    await sink.aclose()
    assert numbers(path) == [13, 14]
    assert numbers(tmp_path / "audit.jsonl.1") == [9, 10, 11, 12]
    assert numbers(tmp_path / "audit.jsonl.2") == [5, 6, 7, 8]
    assert modes(tmp_path) == dict.fromkeys(
        ("audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"), 0o600
    )


async def test_a_file_that_logrotate_moved_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    sink = FileSink("f", path, None)
    await sink.deliver(make_batch(1, 1))
    path.rename(tmp_path / "moved")
    await sink.deliver(make_batch(2, 1))
    path.unlink()
    await sink.deliver(make_batch(3, 1))
    # copytruncate
    shutil.copy(path, tmp_path / "copied")
    os.truncate(path, 0)
    await sink.deliver(make_batch(4, 1))
    await sink.aclose()
    assert numbers(tmp_path / "moved") == [1]
    assert numbers(tmp_path / "copied") == [3]
    assert numbers(path) == [4]


async def test_half_a_line_of_a_killed_process_is_cut_away(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    sink = FileSink("f", path, ROOM)
    await sink.deliver(make_batch(1, 2))
    await sink.aclose()
    with path.open("ab") as file:
        file.write(make_batch(3, 1, pad=70_000).json_lines[:-5])
    sink = FileSink("f", path, ROOM)
    await sink.deliver(make_batch(3, 1))
    await sink.aclose()
    assert numbers(path) == [1, 2, 3]


async def test_what_a_full_disk_took_of_a_batch_does_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "audit.jsonl"
    sink = FileSink("f", path, ROOM)
    await sink.deliver(make_batch(1, 1))
    real = os.write
    room = [100]

    def full(descriptor: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real(descriptor, data[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        await sink.deliver(make_batch(2, 2))
    monkeypatch.undo()
    assert numbers(path) == [1]
    await sink.deliver(make_batch(2, 2))
    await sink.aclose()
    assert numbers(path) == [1, 2, 3]


async def test_a_batch_counts_when_it_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "audit.jsonl"
    synced: list[bytes] = []

    def fsync(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            synced.append(os.pread(descriptor, 10_000_000, 0))

    monkeypatch.setattr(os, "fsync", fsync)
    sink = FileSink("f", path, ROOM)
    await sink.deliver(make_batch(1, 2))
    assert synced[-1] == path.read_bytes() == make_batch(1, 2).json_lines

    def failing(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="Input/output"):
        await sink.deliver(make_batch(3, 1))
    monkeypatch.undo()
    await sink.deliver(make_batch(3, 1))
    await sink.aclose()
    assert numbers(path) == [1, 2, 3]


async def test_what_is_no_file_of_ours_is_refused(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    folder = tmp_path / "folder"
    folder.mkdir()
    for path, match in ((fifo, "not a plain file"), (folder, "Is a directory")):
        sink = FileSink("f", path, ROOM)
        with pytest.raises((DeliveryFailed, OSError), match=match):
            await sink.deliver(make_batch())
        await sink.aclose()
    absent = FileSink("f", tmp_path / "absent" / "audit.jsonl", ROOM)
    with pytest.raises(FileNotFoundError):
        await absent.deliver(make_batch())
    await absent.aclose()


async def test_a_file_that_holds_something_else_keeps_all_of_it(tmp_path: Path) -> None:
    """Its end would be taken for half a line."""
    for content in (b"SQLite format 3\x00" + bytes(5000), b'{\n  "version": 1', b"x"):
        path = tmp_path / "broker.db"
        path.write_bytes(content)
        sink = FileSink("f", path, ROOM)
        with pytest.raises(DeliveryFailed, match="something else than records") as failed:
            await sink.deliver(make_batch())
        await sink.aclose()
        assert failed.value.refused
        assert path.read_bytes() == content
    path.write_bytes(b"{")  # of the first line that there ever was, half
    sink = FileSink("f", path, ROOM)
    await sink.deliver(make_batch(1, 2))
    await sink.aclose()
    assert numbers(path) == [1, 2]


async def test_two_writers_of_one_file_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    one, two = FileSink("a", path, ROOM), FileSink("b", path, ROOM)
    await one.deliver(make_batch(1, 1))
    with pytest.raises(DeliveryFailed, match="another process writes"):
        await two.deliver(make_batch(1, 1))
    await one.aclose()
    await two.deliver(make_batch(2, 1))
    await two.aclose()
    assert numbers(path) == [1, 2]


async def test_a_write_that_hangs_is_not_piled_upon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, release = threading.Event(), threading.Event()

    def hang(_: int) -> None:
        entered.set()
        release.wait(60)

    sink = FileSink("f", tmp_path / "audit.jsonl", ROOM)
    monkeypatch.setattr(os, "fsync", hang)
    hanging = asyncio.create_task(sink.deliver(make_batch()))
    await until(entered.is_set)
    hanging.cancel()
    await asyncio.wait({hanging})
    with pytest.raises(DeliveryFailed, match="still hangs"):
        await sink.deliver(make_batch())
    release.set()
    monkeypatch.undo()
    await sink.aclose()


# --- Standard output ----------------------------------------------------------------------------


def pipe() -> tuple[int, int]:
    return os.pipe()


async def test_lines_go_to_standard_output(tmp_path: Path) -> None:
    path = tmp_path / "out"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    sink = StdoutSink("out", 5, descriptor)
    await sink.deliver(make_batch(1, 2))
    await sink.deliver(make_batch(3, 1, pad=50_000))
    await sink.aclose()
    os.close(descriptor)
    assert numbers(path) == [1, 2, 3]


async def test_a_reader_that_does_not_read_fails_the_batch_and_no_line_is_spoilt() -> None:
    reading, writing = pipe()
    sink = StdoutSink("out", 0.05, writing)
    with pytest.raises(DeliveryFailed, match="nobody reads"):
        await sink.deliver(make_batch(1, 20, pad=20_000))
    got: list[bytes] = []
    with os.fdopen(reading, "rb") as stream:
        reader = threading.Thread(target=lambda: got.append(stream.read()))
        reader.start()
        patient = sink
        patient._seconds = 60
        await patient.deliver(make_batch(1, 20, pad=20_000))
        await patient.aclose()
        os.close(writing)
        reader.join()
    whole: list[int] = []
    for line in got[0].splitlines():
        try:
            whole.append(json.loads(json.loads(line)["record"])["seq"])
        except ValueError:
            whole.append(0)  # the line that was cut off ends there
    assert whole.count(0) <= 1
    assert whole[-20:] == list(range(1, 21))


async def test_a_reader_that_left_fails_the_batch() -> None:
    reading, writing = pipe()
    os.close(reading)
    sink = StdoutSink("out", 5, writing)
    with pytest.raises(BrokenPipeError):
        await sink.deliver(make_batch())
    await sink.aclose()
    os.close(writing)


def test_a_pipe_that_hangs_does_not_hold_up_the_end_of_the_process() -> None:
    code = (
        "import asyncio\n"
        "from broker.adapters.sinks.files import StdoutSink\n"
        "from broker.adapters.sinks.sink import DeliveryFailed\n"
        "from tests.sinks.conftest import make_batch, until\n"
        "async def main():\n"
        "    sink = StdoutSink('out', 0.2)\n"
        "    try:\n"
        "        async with asyncio.timeout(0.1):\n"
        "            await sink.deliver(make_batch(1, 50, pad=20_000))\n"
        "    except (TimeoutError, DeliveryFailed):\n"
        "        await sink.aclose()\n"
        "asyncio.run(main())\n"
    )
    child: Any = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.wait(60) == 0
    child.stdout.close()
