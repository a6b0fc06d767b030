"""Parts of a layer that are no choice among operators: what they cost."""
