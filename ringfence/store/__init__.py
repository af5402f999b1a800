"""The only door to the databases."""
