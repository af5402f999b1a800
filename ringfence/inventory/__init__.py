"""What existed when: pods, nodes and Services as of any time, indexed for filters."""
