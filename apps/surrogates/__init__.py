"""One surrogate family per file behind the interface of `apps.surrogates.base`."""
