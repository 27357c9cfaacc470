"""HTTP: browser pages, the OAuth endpoints and the API under /v1.

Owns: routes, cookies, CSRF, headers, statuses, pages. Does not own: any rule of
who may do what (`identity`, `access`), minting (`issuance`), storage
(`adapters`). Parts are met in `app.py` and reach a route through `parts`.

Nothing here reads the URL of a request to build another: every absolute URL
starts from `Parts.public_url`.
"""
