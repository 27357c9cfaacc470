"""Who is asking, and how surely that is known.

Owns: principals, login sessions and token kinds, the rules of ID tokens, TOTP,
OAuth grants for the broker's own clients. Does no I/O: `now` is a parameter,
and what must be stored or fetched stands as a small Protocol beside its
consumer. Does not own: what a principal may have (`access`).
"""
