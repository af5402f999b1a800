"""What people decide, and the history of the inventory, in SQLite or PostgreSQL."""
