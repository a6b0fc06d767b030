"""How a run is found again: where its paths lead, and in what it differs from what is asked."""
