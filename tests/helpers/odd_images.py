"""Images as people have them, and what each has to become; `python tests/helpers/odd_images.py DIR` writes them."""

import io
import struct
import sys
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image

SIDE = 8
NOISE = np.random.default_rng(5).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
OTHER = np.random.default_rng(6).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
UPRIGHT = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
    8: lambda image: np.rot90(image),
}
"""What makes an image upright, by EXIF orientation, as the standard says it: where row 0 and column 0 are seen."""


class Odd(NamedTuple):
    """One stored image."""

    content: bytes
    expected: np.ndarray | str  # RGB pixels, or words of the reason why it is refused


def encoded(pixels: np.ndarray | Image.Image, form: str, **options) -> bytes:
    stream = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(stream, form, **options)
    return stream.getvalue()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    return tags


def png(rows: list[bytes], bits: int, colour: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG written by hand, for what Pillow does not write; `chunks` follow the pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", SIDE, SIDE, bits, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [(b"IHDR", head), (b"IDAT", data), *chunks, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def odd_images() -> dict[str, Odd]:
    """By file name."""
    image, other = Image.fromarray(NOISE), Image.fromarray(OTHER)
    grey = np.asarray(image.convert("L"))
    palette = image.quantize(16)
    deep = np.frombuffer(NOISE.astype(">u2").tobytes(), ">u2").reshape(SIDE, SIDE * 3) * 256 + 77
    clear = image.convert("RGBA")
    clear.putalpha(Image.fromarray(grey))
    cmyk = encoded(image.convert("CMYK"), "JPEG", quality=95)
    late = png([row.tobytes() for row in NOISE], 8, 2, (b"eXIf", exif(6).tobytes()[6:]))

    def seen(content: bytes) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))

    odd = {f"orientation_{k}.png": Odd(encoded(image, "PNG", exif=exif(k)), UPRIGHT[k](NOISE)) for k in UPRIGHT}
    for name, form, options in (("jpg", "JPEG", {"quality": 95}), ("webp", "WEBP", {"lossless": True})):
        content = encoded(image, form, exif=exif(6), **options)
        odd[f"turned.{name}"] = Odd(content, UPRIGHT[6](seen(content)))
    odd |= {
        "turned.tiff": Odd(encoded(image, "TIFF", tiffinfo={274: 6}), UPRIGHT[6](NOISE)),
        "turned_behind_the_pixels.png": Odd(late, UPRIGHT[6](NOISE)),
        "orientation_9.png": Odd(encoded(image, "PNG", exif=exif(9)), NOISE),
        "damaged_exif.png": Odd(png([row.tobytes() for row in NOISE], 8, 2, (b"eXIf", b"MM\0*\0\0\xff\xff")), NOISE),
        "grey.png": Odd(encoded(grey, "PNG"), np.stack([grey] * 3, 2)),
        "two_colours.png": Odd(encoded(image.convert("1"), "PNG"), np.asarray(image.convert("1").convert("RGB"))),
        "palette.png": Odd(encoded(palette, "PNG"), np.asarray(palette.convert("RGB"))),
        "palette_with_alpha.png": Odd(encoded(palette, "PNG", transparency=3), np.asarray(palette.convert("RGB"))),
        "alpha.png": Odd(encoded(clear, "PNG"), NOISE),
        "grey_alpha.png": Odd(encoded(clear.convert("LA"), "PNG"), np.stack([grey] * 3, 2)),
        "cmyk.jpg": Odd(cmyk, seen(cmyk)),
        "sixteen_bits.png": Odd(png([row.astype(">u2").tobytes() for row in deep], 16, 2), NOISE),
        "two_pages.tiff": Odd(encoded(image, "TIFF", save_all=True, append_images=[other]), NOISE),
        "animated.png": Odd(encoded(image, "PNG", save_all=True, append_images=[other]), NOISE),
        "animated.webp": Odd(encoded(image, "WEBP", save_all=True, append_images=[other], lossless=True), NOISE),
        "animated.gif": Odd(encoded(palette, "GIF", save_all=True, append_images=[other.quantize(16)]), NOISE),
        "a_png_by_another_name.jpg": Odd(encoded(image, "PNG"), NOISE),
        "SHOUTED.PNG": Odd(encoded(image, "PNG"), NOISE),
        "sixteen_bits_grey.png": Odd(encoded(grey.astype(np.uint16) * 256, "PNG"), "more than 8 bits"),
        "floating_point.tiff": Odd(encoded(grey.astype(np.float32), "TIFF"), "floating point"),
        "empty.png": Odd(b"", "the file is empty"),
        "page.jpg": Odd(b"<html>404</html>", "not an image"),
        "program.png": Odd(
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n", "not an image of a known form"
        ),
        "half.png": Odd(encoded(image, "PNG")[:-30], "truncated"),
    }
    odd["animated.gif"] = odd["animated.gif"]._replace(expected=np.asarray(palette.convert("RGB")))
    return odd


def write_odd_images(folder: Path, *, usable: bool = True) -> Path:
    """All odd images in one folder, or only those that are not refused."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (content, expected) in odd_images().items():
        if not (usable and isinstance(expected, str)):
            (folder / name).write_bytes(content)
    return folder


if __name__ == "__main__":
    write_odd_images(Path(sys.argv[1]), usable=False)
