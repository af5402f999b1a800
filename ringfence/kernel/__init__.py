"""The only door to the kernel of a node: BPF, namespaces, netfilter, sockets."""
