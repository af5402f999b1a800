"""Ringfence: zero-trust microsegmentation for Kubernetes and the hosts around it."""
