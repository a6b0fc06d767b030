"""Runs side by side: values, and tables of them."""
