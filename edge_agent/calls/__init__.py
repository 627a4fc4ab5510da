"""Calls from afar, each with an identifier: carried out once, answered as often as asked."""
