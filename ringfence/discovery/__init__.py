"""Which policies the observed connections need."""
