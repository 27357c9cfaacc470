"""A person at a terminal, for the questions that only a person is asked."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Sequence

from tests.cli.conftest import Cli


def type_on_terminal(
    cli: Cli, words: Sequence[str], typed: Sequence[tuple[bytes, bytes]]
) -> tuple[int, bytes]:
    """Run with a terminal for stdin and stderr, stdout captured apart, as by `$(...)`. Each of
    `typed` is (what to wait for, what to type then). Returns the exit code, and all that was
    shown or printed."""
    controller, terminal = pty.openpty()
    with subprocess.Popen(
        cli.argv(*words),
        env=cli.environment,
        stdin=terminal,
        stderr=terminal,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        os.close(terminal)
        shown = b""
        for prompt, answer in typed:
            unread = b""
            while prompt not in unread:
                unread += os.read(controller, 1)
            shown += unread
            os.write(controller, answer)
        out, _ = process.communicate(timeout=60)
    try:
        while piece := os.read(controller, 4096):
            shown += piece
    except OSError:
        pass  # Linux's way to say that the other end is closed
    os.close(controller)
    return process.returncode, shown + out
