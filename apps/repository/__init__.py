"""The owner's side of a release repository: its index, keys, signed metadata and storage."""
