"""Captures flows and enforces policy on one node."""
