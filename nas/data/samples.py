"""A labelled image as it was stored: what identifies it, whether it can be read, and its pixels."""

import difflib
import hashlib
import io
import struct
import unicodedata
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from nas.base import DataError, plural
from nas.settings import is_own

# Pillow's decoders may raise any of these for a damaged file.
_DECODER_ERRORS = (
    OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, AttributeError, ArithmeticError,
    RuntimeError, MemoryError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip

# Pillow knows sixty more, some of which start other programs (of an EPS file, Ghostscript runs what is in it).
_FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")

# By EXIF orientation, what makes the image upright; 1 is upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
# A strip is cut to this before it is resized: one row of a million pixels would become gigabytes.
_MAX_ASPECT = 16

_MAX_LISTED = 10
_LONGEST_NAME = 300  # characters

SMALL_CLASSES_HINT = (
    "each class needs different images in train and search; add some, or leave such classes out with "
    "--set data.skip_small_classes=true"
)


class UnreadableImageError(Exception):
    """One image cannot be used; the text says why. Collected into a `DataError` by whoever reads many."""


class DamagedImageError(UnreadableImageError):
    """An image whose head can be read, but not its pixels."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled image as it was stored."""

    name: str  # path, or file and row, for messages. Never a feature
    label: int  # class number, from 0
    # encoded bytes, or the decoded image where the source has no encoded form, or None
    content: bytes | Image.Image | None
    problem: str = ""  # why there is no content; empty where there is

    def fingerprint(self) -> bytes:
        """SHA-256 of the stored image: of its bytes, or of its pixels where the source decodes. 32 bytes."""
        if isinstance(self.content, Image.Image):
            image = self.content.convert("RGBA") if self.content.mode in ("P", "PA") else self.content
            header = f"{image.mode} {image.width} {image.height}:".encode()
            return hashlib.sha256(header + image.tobytes()).digest()
        return hashlib.sha256(self.content or b"").digest()


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a source that is made of files: call it to read it from its beginning."""

    read: Callable[[], Iterator[Sample]]
    files: tuple[Path, ...]  # all that is read
    meaning: str  # what else decides the samples
    count: int  # of samples

    def __call__(self) -> Iterator[Sample]:
        """Read it."""
        return self.read()


@dataclass(frozen=True, slots=True)
class Source:
    """A data set that can be read any number of times, in a fixed order."""

    title: str  # what it is, for the summary
    class_names: tuple[str, ...]  # one a class; the position is the label
    train: Callable[[], Iterator[Sample]]  # reads the training part from its beginning
    test: Callable[[], Iterator[Sample]] | None  # reads the source's own test part; None where it has none
    # reads the source's own part that ranks candidates, a third beside train and test; None where it has none
    validation: Callable[[], Iterator[Sample]] | None = None
    named_classes: bool = True  # whether the names come from the data; false where they are only numbers
    notes: tuple[str, ...] = ()  # what the user should know, such as files that were not used


def data_error(spec: str, problems: Sequence[str], *, hint: str = "") -> DataError:
    """One error that lists every problem of a data spec."""
    if len(problems) == 1:
        return DataError(f"{spec}: {problems[0]}", hint=hint)
    lines = "\n".join(f"  {problem}" for problem in problems)
    return DataError(f"{spec}: {len(problems)} problems\n{lines}", hint=hint)


def problems_error(spec: str, problems: Sequence[str], unreadable: Sequence[str]) -> DataError:
    """The error for images that cannot be used: what is wrong with them all, and which are unreadable, with why."""
    hint = SMALL_CLASSES_HINT
    if unreadable:
        way = "skip_bad_images=True" if is_own(spec) else "--skip-bad-images (data.skip_bad_images)"
        hint = f"repair or remove them, or leave them out with {way}"
        lines = [*unreadable[:_MAX_LISTED], "..."] if len(unreadable) > _MAX_LISTED else unreadable
        problems = [*problems, "\n    ".join([f"{plural(len(unreadable), 'unreadable image')}:", *lines])]
    return data_error(spec, problems, hint=hint)


class Picture(NamedTuple):
    """A decoded image, and what it was before."""

    image: Image.Image  # RGB, upright, as large as it is stored
    mode: str  # colour mode that it is stored in, Pillow's name
    is_turned: bool  # whether its EXIF orientation turned or mirrored it


def fitted(image: Image.Image, image_size: int) -> npt.NDArray[np.uint8]:
    """RGB pixels [S, S, 3]: shorter side resized to `image_size` S (bicubic, antialiased), then centre crop.

    Square images of side S are not resampled.

    Source: timm `create_transform(crop_pct=1, interpolation="bicubic")`, equal pixel by pixel.
    """
    width, height = image.size
    short = min(width, height)
    if max(width, height) > _MAX_ASPECT * short:
        image = _centre(image, min(width, _MAX_ASPECT * short), min(height, _MAX_ASPECT * short))
        width, height = image.size
    if short != image_size:
        width, height = int(image_size * width / short), int(image_size * height / short)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(_centre(image, image_size, image_size) if width != height else image)


def decoded(content: bytes | Image.Image) -> Picture:
    """The whole image as RGB, turned as its EXIF orientation says.

    Grey, palette, CMYK and RGBA become RGB as in timm: transparency is dropped; of an animation, the first frame.

    Raises:
        UnreadableImageError: Not an image, or one with more than 8 bits a channel.
        DamagedImageError: It has the head of an image, but not the rest.
    """
    image = _opened(content)
    mode = image.mode
    try:
        is_tiff = image.format == "TIFF"  # Pillow turns it on loading; some versions keep the tag
        is_turned = is_tiff and _turn(image) is not None
        image.load()
        turn = None if is_tiff else _turn(image)
        if image.mode in ("P", "PA"):
            image = image.convert("RGBA")
        image = image.convert("RGB")
        return Picture(image if turn is None else image.transpose(turn), mode, is_turned or turn is not None)
    except _DECODER_ERRORS as error:
        raise DamagedImageError(_reason(error)) from error


def size_in_head(content: bytes | Image.Image) -> tuple[int, int]:
    """Width and height as they are stored, pixels; an UnreadableImageError where it is no image."""
    return _opened(content).size


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except _DECODER_ERRORS:
        return None  # damaged metadata: the pixels are as they are


def _centre(image: Image.Image, width: int, height: int) -> Image.Image:
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _opened(content: bytes | Image.Image) -> Image.Image:
    if not isinstance(content, Image.Image) and not content:
        raise UnreadableImageError("the file is empty")
    try:
        Image.init()
        known = [name for name in _FORMATS if name in Image.OPEN]  # an older Pillow has no AVIF
        image = content if isinstance(content, Image.Image) else Image.open(io.BytesIO(content), formats=known)
    except UnidentifiedImageError as error:
        raise UnreadableImageError("not an image of a known form") from error
    except _DECODER_ERRORS as error:
        raise UnreadableImageError(_reason(error)) from error
    # 16-bit grey and floats have no fixed white level: Pillow would cut everything above 255 to white.
    if image.mode.startswith("I") or image.mode == "F":
        kind = "floating point" if image.mode == "F" else "more than 8 bits a channel"
        raise UnreadableImageError(f"{kind} (mode {image.mode}); convert it to 8 bits first")
    return image


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def missing_path(spec: str, path: Path, what: str) -> DataError:
    """The error for a path that is not there, with the nearest name beside it."""
    if path.is_file():
        return DataError(f"{spec}: {path} is a file, not a folder", hint="unpack an archive first")
    hint = f"relative paths start at {Path.cwd()}"
    return DataError(f"{spec}: no such {what}: {path}{nearby(path)}", hint=hint)


def nearby(path: Path) -> str:
    """`; did you mean "..."?` where something of a similar name lies in the same folder, else nothing."""
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, siblings, n=1)
    return f'; did you mean "{path.parent / close[0]}"?' if close else ""


def listed(names: Collection[str], limit: int = 10) -> str:
    """The names in one line, at most `limit` of them, then how many there are; what would move a cursor is escaped."""
    short = (name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..." for name in list(names)[:limit])
    shown = ", ".join(
        "".join(c if unicodedata.category(c)[0] != "C" else ascii(c)[1:-1] for c in name) for name in short
    )
    return shown + (f", ... ({len(names)} in all)" if len(names) > limit else "")
