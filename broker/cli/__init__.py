"""The light client: everything a person or an SDK runs on their own machine.

Owns: logging in (RFC 8252), keeping tokens, asking the broker's API, and
showing what it says. Does not own: any rule of who may have what; the server
decides, the client carries. It imports the standard library, and of the
server's packages `audit` (to verify a log offline) and `errors`.

Start-up time is a feature, since SDKs run `broker credential-process` for every
process that needs credentials: a cached answer is found by `cached` before an
argument parser, JSON or HTTP is imported, and each command imports only what it
needs. HTTP is `http.client`, which starts 100 ms faster than httpx.
"""
