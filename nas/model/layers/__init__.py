"""The parts of a layer, one method a file."""
