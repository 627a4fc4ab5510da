"""Blocks in the gaps of a batch queue: windows, planner, provider, watcher."""
