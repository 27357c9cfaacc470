"""A broker under a sampling profiler: `sampled.py FOLDER server --config FILE`.

Every few milliseconds of CPU time the stack of the event loop's thread is counted, so
that the cost of looking is small and the same for all that is looked at (cProfile
makes small functions look dear). When the server stops it leaves FOLDER/stacks.txt,
folded stacks that every flame-graph tool reads, and FOLDER/flame.svg, drawn from them.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any
from xml.sax.saxutils import escape

from broker.entry import main as broker

_EVERY_SECONDS = 0.001
_WIDTH, _ROW = 1600.0, 16
_Stack = tuple[str, ...]

# Below this frame is what serving costs; without it in a stack the server still starts.
_LOOP = asyncio.Runner.run.__code__

samples: Counter[_Stack] = Counter()


def _sample(_number: int, frame: FrameType | None) -> None:
    stack: list[str] = []
    while frame is not None and frame.f_code is not _LOOP:
        code = frame.f_code
        stack.append(f"{Path(code.co_filename).stem}.{code.co_qualname}")
        frame = frame.f_back
    if frame is not None:
        samples[tuple(reversed(stack))] += 1


def _write(folder: Path) -> None:
    signal.setitimer(signal.ITIMER_PROF, 0.0)
    lines = (f"{';'.join(stack)} {count}\n" for stack, count in sorted(samples.items()))
    (folder / "stacks.txt").write_text("".join(lines))
    (folder / "flame.svg").write_text(_drawn(samples))


def _drawn(counts: Counter[_Stack]) -> str:
    root: dict[str, Any] = {}
    for stack, count in counts.items():
        level = root
        for name in stack:
            node = level.setdefault(name, [0, {}])
            node[0] += count
            level = node[1]
    total = sum(counts.values()) or 1
    depth = max((len(stack) for stack in counts), default=1)
    boxes = "".join(_boxes(root, 0.0, 0, _WIDTH / total, total))
    height = depth * _ROW
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:.0f} {height}" '
        f'font-family="monospace" font-size="11">{boxes}</svg>\n'
    )


def _boxes(level: dict[str, Any], left: float, row: int, scale: float, total: int) -> list[str]:
    drawn: list[str] = []
    for name, (count, below) in sorted(level.items()):
        width = count * scale
        label = escape(name[: int(width / 6.8)])
        hue = sum(name.encode()) % 60
        drawn.append(
            f'<g><title>{escape(name)}: {count / total:.1%}</title><rect x="{left:.1f}" '
            f'y="{row * _ROW}" width="{width:.1f}" height="{_ROW - 1}" fill="hsl({hue},80%,70%)"/>'
            f'<text x="{left + 2:.1f}" y="{row * _ROW + 11}">{label}</text></g>'
        )
        if width >= 1:
            drawn += _boxes(below, left, row + 1, scale, total)
        left += width
    return drawn


def main() -> int:
    folder = Path(sys.argv[1])
    signal.signal(signal.SIGPROF, _sample)
    signal.setitimer(signal.ITIMER_PROF, _EVERY_SECONDS, _EVERY_SECONDS)
    try:
        return broker(sys.argv[2:])
    finally:
        _write(folder)


if __name__ == "__main__":
    sys.exit(main())
