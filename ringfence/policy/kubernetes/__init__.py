"""The Kubernetes layer: NetworkPolicy and ClusterNetworkPolicy, with upstream's semantics."""
