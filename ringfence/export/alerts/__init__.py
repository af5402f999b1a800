"""Alerts to whoever is to hear of them: an interface, and a file for each kind of sink."""
