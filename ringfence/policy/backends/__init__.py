"""Back ends: one file for each kernel mechanism that a node's policy can be written in."""
