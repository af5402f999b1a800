"""The only door to the control plane for its clients: agents and connectors."""
