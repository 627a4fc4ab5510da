"""Getting releases: where they come from, and how they get onto the disk, verified."""
