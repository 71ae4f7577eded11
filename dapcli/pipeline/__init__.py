"""A recording cut into segments, fitted by workers, and joined."""
