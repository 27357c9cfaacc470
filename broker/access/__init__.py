"""Who may have which AWS role, under which conditions, narrowed to what.

Owns: the access policy file as frozen values (`policy`, `hours`, `template`,
`parameter`), its reading with positions (`document`, `reading`, `parse*`,
`grammar`, `finding`), advice and comparison (`lint`, `diff`), the session
policy as sent (`session_policy`, `tags`), grants (`grant`), the decision
(`decide`) and who administers (`rights`). Pure: no I/O, no clock.
Does not own: minting (`issuance`), storage of versions (`adapters/store`).
"""
