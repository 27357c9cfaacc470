"""What AWS takes as a session tag (AssumeRole, API reference: Tag).

Owns: limits, the characters of keys and values, and the one tag that is the
broker's own.
"""

from __future__ import annotations

import re
import unicodedata

ISSUANCE_TAG = "broker:issuance"  # on every session, transitive: CloudTrail joins on it
RESERVED = ("aws:", "broker:")
MAX_TAGS = 49  # of a role: AWS takes 50, one is the broker's
MAX_KEY = 128
MAX_VALUE = 256
_PUNCTUATION = frozenset("_.:/=+-@")
_USUAL = re.compile(r"[A-Za-z0-9 _.:/=+@-]*", re.ASCII)


def is_tag_text(text: str) -> bool:
    r"""AWS's pattern of tag keys and values: `[\p{L}\p{Z}\p{N}_.:/=+\-@]*`."""
    return bool(_USUAL.fullmatch(text)) or all(
        character in _PUNCTUATION or unicodedata.category(character)[0] in "LZN"
        for character in text
    )
