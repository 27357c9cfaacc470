"""AWS STS as the broker uses it: AssumeRole and GetCallerIdentity, nothing else.

Owns: the broker's own (base) credentials and whether they are chained, regional
endpoints, signing, the connection pool, what may be sent twice, and the reading
of every answer into `Minted` or `StsFailure`. Does not own: what is asked for
(`issuance/scope`), the record (`issuance/issue`), other AWS services.

Reads top to bottom: `client` (the one entry), `partition` (base credentials and
identity in one partition), `exchange` (one question, retried only where that
cannot mint twice), then the parts: `credentials`, `endpoint`, `sigv4`, `query`,
`pool`, `answer`, `refusal`.
"""

from broker.adapters.sts.client import StsClient
from broker.adapters.sts.config import StsConfig

__all__ = ["StsClient", "StsConfig"]
