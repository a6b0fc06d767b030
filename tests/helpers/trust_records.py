"""What `trust` leaves in a run's folder."""

CHEAP = ("--architectures=5", "--seeds=2", "--epochs=1", "--workers=0")


def trainings(folder):
    """Record by file name, and when it was written."""
    return {path.name: (path.read_text(), path.stat().st_mtime_ns) for path in (folder / "trust").glob("*.json")}


def outline(values):
    return {key: value for key, value in values.items() if key != "run"}
