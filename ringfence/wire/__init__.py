"""What travels between agents, connectors and the control plane: protobuf and Arrow schemas."""
