"""Stems: how an image becomes patch tokens, one for a network."""
