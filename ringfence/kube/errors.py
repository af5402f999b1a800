"""What can go wrong with a Kubernetes API, by what helps against it."""

from ringfence.model.errors import RingfenceError


class KubeError(RingfenceError):
    """The Kubernetes API was not reached, or it refused."""


class KubeconfigError(KubeError):
    """There is no usable way to the API: no kubeconfig, no service account."""


class ExpiredError(KubeError):
    """The resource version or list page is too old (410 Gone): list anew."""


class AbsentError(KubeError):
    """The API has no such resource (404 Not Found): its definition may come."""


class ForbiddenKindError(KubeError):
    """We may not read the resource (403 Forbidden): somebody may grant it."""
