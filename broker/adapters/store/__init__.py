"""The entitlement database.

Owns: the tables, connections and transactions, and every store verb: one atomic
transaction that returns frozen values and commits its audit event with the
change. Locks are taken in one order everywhere: the person's row, their other
rows, the audit head last. Does not own: what a verb is for (the Protocols of
`identity`, `access`, `issuance`), nor migrations (`adapters/migrations`).
"""
