"""Ringfence: zero-trust microsegmentation for Kubernetes and the hosts around it."""

__version__ = "0.1.0"
