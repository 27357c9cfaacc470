"""What `broker aws bootstrap` prints: one module a format, each a pure function of the setup.

Owns: the texts, and that no value from an access policy can be more than a value
in them. Does not own: what AWS needs (`issuance/aws_setup`).
"""
