"""The verbs of CI workloads and their jobs that are not the journal's.

Owns: an entry's principal, made once for its name and issuer and never again, and
the one look at the clock and the policy's number that jobs who wait share.
Does not own: letting a job in (`journal_jobs`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.adapters.store.engine import Database
from broker.adapters.store.principals import lock_who_is_who
from broker.adapters.store.schema import access_policies, principals
from broker.adapters.waiting import for_one_of_many
from broker.identity.job import PROVIDER, WORKLOAD_ISSUER
from broker.identity.job_store import Standing
from broker.identity.principal import PrincipalKind, new_principal_id
from broker.identity.trust import Workload, workload_subject

WorkloadName = tuple[str, str]  # the entry's name, and the issuer it trusts


class SqlJobs:
    """Implements `identity.job_store.JobStore`. Ids never change, so they are looked up once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ids: dict[str, str] = {}
        self._waiting: list[asyncio.Future[Standing]] = []
        self._looking: asyncio.Task[None] | None = None

    async def standing(self) -> Standing:
        """The clock and the newest policy's number.

        Whoever comes while a look is under way shares the next one: it starts after they came, so
        that nobody is judged by what was true before they asked.
        """
        answer: asyncio.Future[Standing] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_for_all())
        return await answer

    async def _look_for_all(self) -> None:
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, []
                try:
                    standing = await self._look()
                except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it
                    for answer in waiting:
                        if not answer.done():
                            answer.set_exception(for_one_of_many(error))
                    continue
                for answer in waiting:
                    if not answer.done():
                        answer.set_result(standing)
        finally:
            self._looking = None

    async def _look(self) -> Standing:
        newest = func.coalesce(func.max(access_policies.c.number), 0)
        async with self._database.read() as conn:
            if self._database.dialect == "sqlite":
                number = (await conn.execute(select(newest))).scalar_one()
                return Standing(await self._database.now(conn), number)
            row = (await conn.execute(select(func.clock_timestamp(), newest))).one()
            return Standing(row[0], row[1])

    async def workload_id(self, workload: Workload) -> str:
        """Applying a policy makes these principals; where one is missing it is made now."""
        known = self._ids.get(workload.subject)
        if known is not None:
            return known
        async with self._database.begin() as conn:
            await lock_who_is_who(conn)
            now = await self._database.now(conn)
            made = await name_workloads(conn, [(workload.name, workload.issuer)], now)
        principal_id = self._ids[workload.subject] = made[workload.subject]
        return principal_id


async def name_workloads(
    conn: AsyncConnection, workloads: Iterable[WorkloadName], now: datetime
) -> dict[str, str]:
    """The principal id of each entry, by subject. The caller holds `lock_who_is_who`.

    A principal stays when its entry is dropped: should the entry return, it is the same one.
    """
    wanted = {workload_subject(name, issuer): name for name, issuer in workloads}
    query = select(principals.c.subject, principals.c.id).where(
        principals.c.issuer == WORKLOAD_ISSUER, principals.c.subject.in_(wanted)
    )
    ids = {row.subject: row.id for row in (await conn.execute(query)).all()}
    for subject in sorted(wanted.keys() - ids.keys()):
        ids[subject] = new_principal_id(PrincipalKind.WORKLOAD)
        await conn.execute(
            insert(principals).values(
                id=ids[subject],
                kind=PrincipalKind.WORKLOAD.value,
                issuer=WORKLOAD_ISSUER,
                subject=subject,
                provider=PROVIDER,
                handle=wanted[subject],
                email_verified=False,
                groups=[],
                claims={},
                created_at=now,
            )
        )
    return ids
