"""The door to lists and advisories that others publish."""
