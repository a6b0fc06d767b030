"""Decoded images on disk, a part of a source once, which all runs and processes share."""
