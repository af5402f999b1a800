"""Watches one Kubernetes cluster and publishes its inventory."""
