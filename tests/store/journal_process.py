"""A broker process of its own, as far as the log is concerned. Run by test_journal_processes.

    python -m tests.store.journal_process URL CALLERS ROUNDS

Each caller asks for and concludes issuances, ROUNDS times or, with 0, until killed.
Writes a line when it is ready and one `done` at the end; each line it reads starts it.
"""

from __future__ import annotations

import asyncio
import sys

from broker.adapters.store.engine import Database
from broker.adapters.store.journal import GroupCommitJournal
from broker.issuance.journal import State
from tests.store.journal_scene import intent, outcome


async def caller(journal: GroupCommitJournal, rounds: int) -> None:
    done = 0
    while rounds == 0 or done < rounds:
        asked = intent()
        await journal.request(asked)
        concluded = await journal.conclude(outcome(asked))
        if concluded.state is not State.ISSUED:
            raise RuntimeError(f"withheld: {concluded.reason}")
        done += 1


def say(word: str) -> None:
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


async def main(url: str, callers: int, rounds: int) -> None:
    database = Database.open(url)
    journal = GroupCommitJournal(database)
    await journal.start()
    say("ready")
    await asyncio.to_thread(sys.stdin.readline)
    say("started")
    await asyncio.gather(*(caller(journal, rounds) for _ in range(callers)))
    await journal.aclose()
    await database.aclose()
    say("done")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
