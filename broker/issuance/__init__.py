"""Minting: from a decision to scoped AWS credentials and their record.

Owns: how long (`duration`), narrowed to what (`scope`), the use case as
numbered steps (`issue`), what is asked of STS and of the log (`sts`,
`journal`). Does not own: who may (`access`), HTTP, AWS's wire format
(`adapters/sts`).
"""
