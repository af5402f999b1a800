"""A real Kubernetes cluster in network namespaces, with a shop in it."""
