"""A search space and a configuration for somebody's images."""
