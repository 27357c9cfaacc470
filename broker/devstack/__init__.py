"""Stand-ins for `broker dev` and the tests: an OpenID provider and an AWS.

They answer on loopback alone, hold their state in memory and are never part of
a server's import graph: only `server_cli.dev` and the tests start them.
"""
