"""From an architecture to a measurement."""
