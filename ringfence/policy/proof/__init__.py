"""Proof that rules read back from a kernel mean what the policy says, for every packet."""
