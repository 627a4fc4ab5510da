"""Validation of the simulators; ``python -m benchmarks.validation`` writes docs/validation.md."""
