"""One hypothesis profile for all laws, so that a run gives the same answer twice.

The same worlds are tried every time. RINGFENCE_EXAMPLES tries that many random ones instead.
"""

import os

from hypothesis import HealthCheck, settings

_EXAMPLES = os.environ.get("RINGFENCE_EXAMPLES")

settings.register_profile(
    "ringfence",
    max_examples=int(_EXAMPLES or 100),
    derandomize=not _EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("ringfence")
