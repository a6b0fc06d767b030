"""What an architecture is compared with that is trained alone."""
