"""Who may have which AWS role, under which conditions, narrowed to what.

Owns: the access policy file as frozen values (`policy`), its reading with
positions (`document`, `parse`), session policy templates (`template`), lint
(`lint`), grants (`grant`) and the decision (`decide`). Pure: no I/O, no clock.
Does not own: minting (`issuance`), storage of versions (`adapters/store`).
"""
