"""What programs outside the agent's process use to speak to it."""

from edge_agent.client.connections import Reply, parse_address
from edge_agent.client.remote_agent import RemoteAgent
from edge_agent.client.tensors import error_of, readings_body

__all__ = ["RemoteAgent", "Reply", "error_of", "parse_address", "readings_body"]
