"""Decoded images on disk: every part of a source once, as a memory map that all runs and processes share.

`*.images` holds the pixels of a part at one size: a row for each sample of the source, in its order, then the sums of
each row. Its name ends with a hash of the listing: the fingerprints in order, the size and `VERSION`. `*.index` is the
listing, named by what tells without decoding that it is the same: names, sizes and times of the files, or what is
stored where a source has no files. Neither is ever changed, and both may be deleted at any time.
"""

import fcntl
import hashlib
import os
import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from nas.base import DataError, Reporter, atomic_write_bytes, remove, scratch_path, sweep, sync_folder, writing
from nas.data.samples import Part, Sample
from nas.data.sources import open_source
from nas.data.splits import Entry, Listing
from nas.data.store.decode import SUMS, list_samples
from nas.data.store.folder import store_folder
from nas.data.store.index import read_listing, to_bytes
from nas.settings import DataConfig

VERSION = 1  # of the files here, and of how images are decoded and resized: those of others are not found
SETTLED_NS = 2_000_000_000  # a file changed later than this before it is read may change again with the same time
SAID_BYTES = 64 * 2**20  # from here on a forecast and progress are worth a line


@dataclass(frozen=True, slots=True)
class Origin:
    """Whence the images of a file can be had again: small, and sent to other processes in place of images."""

    config: DataConfig
    part: str  # of the source: `train`, `validation` or `test`
    num_classes: int  # of the source
    side: int  # of the stored images, pixels


class Pixels:
    """Images in a file, read where they are asked for: `pixels[numbers]` is a copy, [n, 3, S, S] uint8.

    Pickled, it is where the images are: another process opens the file itself, and on another machine makes its own.
    `side` S may be smaller than that of the stored images: it is their centre that is seen, but for `uncut`.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, stored: "Stored", positions: NDArray[np.int64], side: int) -> None:
        self._stored, self._positions, self._side = stored, positions, side

    def __len__(self) -> int:
        return len(self._positions)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Images, channels, height and width."""
        return len(self), 3, self._side, self._side

    @property
    def nbytes(self) -> int:
        """Of memory, not of the file: bytes of the positions."""
        return self._positions.nbytes

    def __getitem__(self, numbers: Any) -> NDArray[np.uint8]:
        first = (self._stored.origin.side - self._side) // 2
        kept = slice(first, first + self._side)
        return self.uncut(numbers)[..., kept, kept]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype=dtype)

    def uncut(self, numbers: Any) -> NDArray[np.uint8]:
        """The images as they are stored."""
        found: NDArray[np.uint8] = self._stored.rows[self._positions[numbers]]
        return found

    @property
    def stored_side(self) -> int:
        """Height and width of `uncut` images, pixels."""
        return self._stored.origin.side

    def part(self, start: int, stop: int) -> "Pixels":
        """The images from one number up to another, without reading one."""
        return Pixels(self._stored, self._positions[start:stop], self._side)

    def sums(self) -> list[int]:
        """The sum of all stored pixels of each of three channels, then of their squares."""
        return [int(value) for value in self._stored.sums[self._positions].sum(axis=0)]


class Stored:
    """The images of one part of a source: a file that is held open, so that nobody sweeps it."""

    def __init__(self, origin: Origin, key: str, path: Path) -> None:
        self.origin, self.key = origin, key
        shape, row = (3, origin.side, origin.side), 3 * origin.side**2
        self.rows: NDArray[np.uint8] = np.empty((0, *shape), np.uint8)
        self.sums: NDArray[np.int64] = np.empty((0, SUMS), np.int64)
        with path.open("rb") as file:  # the maps hold it, and the lock, from here on
            fcntl.flock(file, fcntl.LOCK_SH)
            count = os.fstat(file.fileno()).st_size // (row + 8 * SUMS)
            if count:
                self.rows = np.asarray(np.memmap(file, np.uint8, "r", shape=(count, *shape)))
                self.sums = np.asarray(np.memmap(file, np.int64, "r", offset=count * row, shape=(count, SUMS)))
        os.utime(path)  # when it was last used

    def pixels(self, entries: Sequence[Entry], side: int) -> Pixels:
        """Those of the entries, their centre of `side` pixels."""
        return Pixels(self, np.array([entry.position for entry in entries], dtype=np.int64), side)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.origin, self.key)


def _reopened(origin: Origin, key: str) -> Stored:
    stored = _find(origin, key)
    if stored is None:  # another machine, or it was swept
        part = getattr(open_source(origin.config), origin.part)
        _, stored = read_part(part, origin, Reporter(quiet=True))
        if stored is None or stored.key != key:
            raise DataError(
                f"{origin.config.spec}: other images on this machine than where the run was started",
                hint="all machines must see the same images at the same path",
            )
    return stored


def read_part(
    part: Callable[[], Iterator[Sample]], origin: Origin, reporter: Reporter, *, keep: bool = True
) -> tuple[Listing, Stored | None]:
    """What a part of a source holds, and its images; both from files where these were made before.

    Without `keep` no image is kept: the second is None.

    Raises:
        DataError: The images have no room on the disk.
        DiskError: A file cannot be written.
    """
    folder = store_folder(reporter)
    with warnings.catch_warnings():
        # Pillow warns of damaged metadata and of large images; neither keeps the pixels from being used.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        stamp, count = _stamp(part, origin.num_classes)
        index = folder / f"{stamp}.index"
        with _alone(folder / f".{stamp}.lock", reporter):  # of two processes that start together one decodes
            listing = read_listing(index)
            stored = _find(origin, _key(listing, origin.side)) if listing and keep else None
            if listing is None or (keep and stored is None):
                listing = _store(part(), origin, count, reporter) if keep else list_samples(part(), origin.num_classes)
                atomic_write_bytes(index, to_bytes(listing))
                index.chmod(0o600)
                stored = _find(origin, _key(listing, origin.side)) if keep else None
    return listing, stored


@contextmanager
def _alone(path: Path, reporter: Reporter) -> Iterator[None]:
    lock = FileLock(path, mode=0o600)
    with writing(path):
        try:
            lock.acquire(timeout=1)
        except Timeout:
            reporter.line("images", "another process decodes them; waiting")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _stamp(part: Callable[[], Iterator[Sample]], num_classes: int) -> tuple[str, int | None]:
    """A hash that stays where no sample has changed, and how many samples there are.

    Of files, name, size, times and inode are enough: a change sets `ctime`, which nobody can set back. But one that
    was changed just now may change again within a tick of its clock: then what is stored counts, as it does where a
    part is of no files.
    """
    sha = hashlib.sha256(f"{VERSION} {num_classes} ".encode())
    if isinstance(part, Part) and part.files:
        names, now, newest = sha.copy(), time.time_ns(), 0
        names.update(part.meaning.encode("utf-8", "surrogateescape"))
        try:
            for path in part.files:
                status = path.stat()
                facts = status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev
                names.update(os.fsencode(path.absolute()) + f"\0{facts}".encode())
                newest = max(newest, status.st_mtime_ns, status.st_ctime_ns)
        except OSError:
            newest = now
        if newest < now - SETTLED_NS:
            return names.hexdigest()[:32], part.count
    count = 0
    for sample in part():
        text = f"{sample.name}\0{sample.label}\0{sample.problem}\0"
        sha.update(text.encode("utf-8", "surrogateescape") + sample.fingerprint())
        count += 1
    return sha.hexdigest()[:32], count


def _key(listing: Listing, side: int) -> str:
    sha = hashlib.sha256(f"{VERSION} {side} {listing.num_samples} ".encode())
    for entry in listing.entries:
        sha.update(entry.position.to_bytes(8, "big") + entry.fingerprint)
    return sha.hexdigest()[:32]


def _find(origin: Origin, key: str) -> Stored | None:
    ending = f"x{origin.side}-{key}.images"
    for path in store_folder().glob(f"*{ending}"):
        try:
            stored = Stored(origin, key, path)
        except FileNotFoundError:  # swept just now
            continue
        if path.name.removesuffix(ending).endswith(f"-{len(stored.rows)}"):  # or it was cut off, and is made anew
            return stored
    return None


# --- making them -------------------------------------------------------------------------------------------


def _store(samples: Iterator[Sample], origin: Origin, count: int | None, reporter: Reporter) -> Listing:
    """List all samples and store their images: whole, or not at all."""
    folder, needed = store_folder(), (count or 0) * (3 * origin.side**2 + 8 * SUMS)
    _check_room(origin, count or 0, needed, folder)
    scratch = scratch_path(folder / "images")
    with writing(folder, needed), _progress(origin, count or 0, needed, reporter) as tell:
        sweep(folder.glob(".*.tmp"))
        try:
            with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                listing = list_samples(samples, origin.num_classes, file, origin.side, tell)
                file.flush()
                os.fsync(file.fileno())
            key = _key(listing, origin.side)
            if _find(origin, key) is not None:  # the same images by another path
                remove(scratch)
            else:
                where = re.sub(r"[^A-Za-z0-9]+", "-", f"{origin.config.spec.partition(':')[2]} {origin.part}")
                name = f"{where[-40:].strip('-')}-{listing.num_samples}x{origin.side}-{key}.images"
                scratch.replace(folder / name)
        except BaseException:
            remove(scratch)
            raise
        sync_folder(folder)
    return listing


def _check_room(origin: Origin, count: int, needed: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{origin.config.spec}: {count:,} images of {origin.side}x{origin.side} need {needed / 2**30:.1f} GiB in "
            f"{folder}, {free / 2**30:.1f} GiB are free",
            hint="`cache --sweep` deletes what no process uses, NAS_CACHE names a folder on another disk; or use fewer "
            "images, or a smaller image_size",
        )


@contextmanager
def _progress(origin: Origin, count: int, needed: int, reporter: Reporter) -> Iterator[Callable[[int], None]]:
    """Say what is ahead, and how far it is, where it takes a while."""
    if needed < SAID_BYTES:
        yield lambda _: None
        return
    place = "NAS_CACHE" if os.environ.get("NAS_CACHE") else "the cache"
    text = f"{count:,} of {origin.part} are decoded once: {needed / 2**30:.2f} GiB in {place}, see `cache`"
    reporter.line("images", text)
    with reporter.bar("images") as bar:
        yield lambda done: bar(done, count, f"{done:,} of {count:,}")
