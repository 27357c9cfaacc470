"""Edges of the broker: databases, OpenID providers, keys, AWS.

Each implements Protocols that the core declares. Does not own: rules.
"""
