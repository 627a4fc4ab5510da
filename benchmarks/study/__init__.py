"""The study: whether the served model gets better, and what an hour of delay costs.

``python -m benchmarks.study`` (``make evidence``) replays the mast record against a truth that
moves and writes ``docs/evidence.md``.
"""
