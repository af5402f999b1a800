"""What may talk to whom, why, and how that becomes rules."""
