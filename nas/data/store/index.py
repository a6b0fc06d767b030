"""Listings as files, so that unchanged images need not be read to be known."""

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.data.splits import Entry, Listing
from nas.data.twins import THUMBNAIL

_HASH, _THUMBNAIL = 32, THUMBNAIL[0] * THUMBNAIL[1]  # bytes


def to_bytes(listing: Listing) -> bytes:
    """A listing as the content of a file."""
    entries = listing.entries
    facts = {
        "unreadable": listing.unreadable, "bad_labels": listing.bad_labels, "modes": listing.modes,
        "sizes": sorted(listing.sizes), "num_turned": listing.num_turned, "num_samples": listing.num_samples,
    }  # fmt: skip
    names = "\0".join(entry.name for entry in entries).encode("utf-8", "surrogateescape")
    arrays: dict[str, NDArray[Any]] = {
        "facts": _bytes(json.dumps(facts).encode()),
        "names": _bytes(names),
        "positions": np.array([entry.position for entry in entries], dtype=np.int64),
        "labels": np.array([entry.label for entry in entries], dtype=np.int64),
        "fingerprints": _bytes(b"".join(entry.fingerprint for entry in entries)),
        "pixels": _bytes(b"".join(entry.pixels or bytes(_HASH) for entry in entries)),
        "thumbnails": _bytes(b"".join(entry.thumbnail or bytes(_THUMBNAIL) for entry in entries)),
    }
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **arrays)
    return stream.getvalue()


def _bytes(content: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(content, dtype=np.uint8)


def read_listing(path: Path) -> Listing | None:
    """The listing in a file; None: there is none, or it is damaged, and has to be made anew."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
        facts = json.loads(found["facts"].tobytes())
        names = found["names"].tobytes().decode("utf-8", "surrogateescape").split("\0")
        fingerprints, pixels, thumbnails = (
            [content[start : start + size] for start in range(0, len(content), size)]
            for content, size in (
                (found["fingerprints"].tobytes(), _HASH),
                (found["pixels"].tobytes(), _HASH),
                (found["thumbnails"].tobytes(), _THUMBNAIL),
            )
        )
        labels = found["labels"].tolist()
        columns = found["positions"].tolist(), fingerprints, labels, names[: len(labels)], pixels, thumbnails
        entries = [Entry(*values) if any(values[4]) else Entry(*values[:4]) for values in zip(*columns, strict=True)]
        return Listing(
            entries=entries,
            unreadable=facts["unreadable"],
            bad_labels=facts["bad_labels"],
            modes=Counter(facts["modes"]),
            sizes={(width, height) for width, height in facts["sizes"]},
            num_turned=facts["num_turned"],
            num_samples=facts["num_samples"],
        )
    except Exception:  # noqa: BLE001 - a damaged archive is an encrypted one, say, and whatever is wrong, it is made anew
        return None
