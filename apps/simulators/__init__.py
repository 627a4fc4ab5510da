"""One solver per file behind the interface of `apps.simulators.base`."""
