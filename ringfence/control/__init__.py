"""The control plane: API, agents, analysis."""
