"""Who may read a file that holds a secret.

The rule is PostgreSQL's for its key files: mode 0600 or less, or, where root owns the file and this
process is not root, 0640 or less. Secrets that Kubernetes mounts for a process without root are
`root:fsGroup 0440`, and there is no way to mount them as its own.
"""

from __future__ import annotations

import os

_OTHERS = 0o077
_OTHERS_THAN_ROOTS_GROUP = 0o037


def others_may_read(status: os.stat_result) -> bool:
    """Whether a file of this status is too open to hold a secret of this process."""
    chosen_by_root = status.st_uid == 0 and os.geteuid() != 0
    return bool(status.st_mode & (_OTHERS_THAN_ROOTS_GROUP if chosen_by_root else _OTHERS))
