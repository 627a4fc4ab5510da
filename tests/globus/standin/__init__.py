"""A stand-in for the hosted Globus Compute web service and Globus Auth, on loopback.

Enough of both for the real SDK and the real endpoint. The broker is a real RabbitMQ. Fields that
neither of them reads are left out.
"""

from .service import PORT, Faults, StandIn

__all__ = ["PORT", "Faults", "StandIn"]
