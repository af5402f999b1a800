"""The steps from the finest policies to the coarsest; `discovery.granularity` takes them."""

from enum import StrEnum


class Boundary(StrEnum):
    """How finely policies tell ends apart."""

    VERY_FINE = "very-fine"
    FINE = "fine"
    MEDIUM = "medium"
    COARSE = "coarse"
    VERY_COARSE = "very-coarse"
    NAMESPACE = "namespace"
    KUBERNETES_CLUSTER = "kubernetes-cluster"
