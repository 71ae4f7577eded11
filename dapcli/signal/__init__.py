"""Classical signal processing, one method a module."""
