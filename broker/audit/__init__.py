"""The audit log: what a record is, how records chain, and how a stranger verifies them.

Owns: the events and their types (`record`), canonical bytes and hashes
(`record`, `chain`), what is kept of a flood of denials (`suppress`), offline
verification (`verify`). Does not own: where records are stored
(`adapters/store`) or who may read them (`web`). `chain` and `verify` import the
standard library alone, since the light client uses them.
"""
