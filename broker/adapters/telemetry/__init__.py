"""What an operator sees of a running broker: counted, timed and traced.

`instruments` counts, `issuance` times one request for credentials, `counted` are
the stores and limits whose verbs count, `tracing` sends spans. Nothing here can
refuse or delay a request: what can't be counted or sent is left out.
"""
