"""What the campaign and the edge agent must agree on, and nothing else.

Pure; numpy, pydantic and msgspec at most. `storage` (durable files) and `failpoints` (crash tests)
are the two that touch the system.
"""
