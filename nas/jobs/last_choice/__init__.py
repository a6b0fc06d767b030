"""The last choice of a run: by trainings of the best candidates."""
