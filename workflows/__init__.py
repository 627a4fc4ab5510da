"""The campaign: simulate, train, validate and publish without end, on Parsl."""
