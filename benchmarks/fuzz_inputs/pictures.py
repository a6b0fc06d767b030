"""Pictures that are odd: whole containers of which the inside is damaged, and rare ones that are as they should be."""

import functools
import io
import random
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

from fuzz_inputs.case import spoiled

SIGNATURE = b"\x89PNG\r\n\x1a\n"
SUFFIXES = ("png", "jpg", "JPEG", "bmp", "gif", "tiff", "tif", "webp", "ppm", "avif", "txt", "svg", "jfif", "pgm")
FORMS = {
    "png": "PNG",
    "jpg": "JPEG",
    "JPEG": "JPEG",
    "jfif": "JPEG",
    "bmp": "BMP",
    "gif": "GIF",
    "tiff": "TIFF",
    "tif": "TIFF",
    "webp": "WEBP",
    "ppm": "PPM",
    "pgm": "PPM",
}


@functools.cache
def zeros(count: int) -> bytes:
    """So many, compressed."""
    return zlib.compress(bytes(count))


def noise(rng: random.Random, width: int, height: int) -> Image.Image:
    """RGB."""
    pixels = np.random.default_rng(rng.randrange(2**32))
    return Image.fromarray(pixels.integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    """A file; as PNG where the form cannot hold the image's mode."""
    file = io.BytesIO()
    try:
        image.save(file, form, **options)
    except (OSError, ValueError, KeyError, RuntimeError):
        file = io.BytesIO()
        image.convert("RGB").save(file, "PNG")
    return file.getvalue()


def picture(rng: random.Random, suffix: str, *, damage: float = 0.1) -> bytes:
    """The content of a file with this suffix; so many of all are damaged, and some more are of another form."""
    form = FORMS.get(suffix, "PNG")
    if rng.random() < damage:
        return rng.choice(DAMAGED)(rng, form)
    width, height = rng.choice(((8, 8),) * 4 + ((1, 1), (9, 300), (2000, 1), (64, 48)))
    image = noise(rng, width, height)
    mode = rng.choice(("RGB", "RGB", "RGB", "L", "P", "RGBA", "1", "CMYK", "LA", "PA", "YCbCr", "LAB", "HSV"))
    options: dict[str, Any] = {}
    match form:
        case "JPEG":
            mode = rng.choice(("RGB", "RGB", "L", "CMYK"))
            options = {"progressive": rng.random() < 0.3, "quality": rng.choice((1, 75, 95))}
        case "TIFF":
            options = {"compression": rng.choice((None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "tiff_jpeg"))}
        case "WEBP":
            options = {"lossless": rng.random() < 0.5}
    if form in ("GIF", "PNG", "WEBP", "TIFF") and rng.random() < 0.2:
        options |= {"save_all": True, "append_images": [noise(rng, width, height)], "duration": 10}
    if form in ("JPEG", "PNG", "WEBP") and rng.random() < 0.2:
        options["exif"] = exif(rng)
    if mode == "P" and rng.random() < 0.5:
        options["transparency"] = rng.choice((0, 3, bytes(range(256)), b"\0"))
    return encoded(image.convert("RGB") if mode == "RGB" else _converted(image, mode), form, **options)


def _converted(image: Image.Image, mode: str) -> Image.Image:
    try:
        return image.convert(mode)
    except ValueError:
        return image


def exif(rng: random.Random) -> bytes:
    """A block whose orientation is any number, or whose inside is damaged."""
    order = rng.choice("<>")
    value, kind, count = (
        rng.choice((0, 1, 6, 8, 9, 65535)),
        rng.choice((3, 3, 3, 2, 4, 5, 12, 99)),
        rng.choice((1, 1, 2, 2**31)),
    )
    entry = struct.pack(f"{order}HHIHH", 0x0112, kind, count, value, 0)
    further = struct.pack(
        f"{order}HHII", rng.choice((0x8769, 0x8825, 0xA005, 0x014A)), 4, 1, rng.choice((8, 0, 2**32 - 1))
    )
    block = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", rng.choice((8, 8, 8, 8, 0, 2**31)))
    block += struct.pack(f"{order}H", rng.choice((2, 2, 2, 1, 0, 65535))) + entry + further
    block += struct.pack(f"{order}I", rng.choice((0, 8, 2**32 - 1)))
    return b"Exif\0\0" + (spoiled(block, rng) if rng.random() < 0.3 else block)


# --- damage ---


def chunk(kind: bytes, data: bytes, crc: int | None = None) -> bytes:
    """A part of a PNG; `crc` is a wrong sum."""
    return (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) if crc is None else crc)
    )


def _png(rng: random.Random, _: str) -> bytes:
    """A PNG of right and wrong chunks."""
    width, height = rng.choice(
        (
            (8, 8),
            (8, 8),
            (8, 8),
            (0, 8),
            (8, 0),
            (0, 0),
            (2**31 - 1, 1),
            (1, 2**31 - 1),
            (60_000, 60_000),
            (2**32 - 1, 2**32 - 1),
        )
    )
    bits, colour = rng.choice(
        (
            (8, 2),
            (8, 2),
            (16, 2),
            (8, 6),
            (16, 6),
            (8, 0),
            (16, 0),
            (1, 0),
            (8, 3),
            (1, 3),
            (4, 3),
            (16, 4),
            (8, 4),
            (3, 2),
            (8, 7),
        )
    )
    head = struct.pack(
        ">IIBBBBB",
        width,
        height,
        bits,
        colour,
        rng.choice((0, 0, 0, 1)),
        rng.choice((0, 0, 0, 9)),
        rng.choice((0, 0, 1, 7)),
    )
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 3)
    row = bytes([rng.choice((0, 0, 1, 4, 200))]) + rng.randbytes((8 * channels * bits + 7) // 8)
    data = zlib.compress(row * rng.choice((8, 8, 8, 7, 1, 0, 100)))
    if rng.random() < 0.3:
        data = spoiled(data, rng)
    if rng.random() < 0.05:
        data = zeros(50_000_000)
    extra = [
        (b"PLTE", rng.randbytes(rng.choice((0, 3, 48, 768, 770)))),
        (b"tRNS", rng.randbytes(rng.choice((0, 1, 6, 300)))),
        (b"iCCP", b"x\0\0" + zeros(rng.choice((10, 100_000_000)))),
        (b"gAMA", b"\0"),
        (b"cHRM", b""),
        (b"zTXt", b"a\0\0" + zeros(rng.choice((10, 100_000_000)))),
        (b"iTXt", b"a\0\1\0\0\0" + rng.randbytes(9)),
        (b"tEXt", b"a" * 1000),
        (b"eXIf", exif(rng)[6:]),
        (b"acTL", struct.pack(">II", rng.choice((0, 2, 2**31)), 0)),
        (b"fcTL", rng.randbytes(rng.choice((26, 3)))),
        (b"fdAT", rng.randbytes(9)),
        (b"pHYs", b"\0" * 9),
        (b"IHDR", head),
        (b"sRGB", b""),
        (b"\xff\0ab", b"x"),
        (b"IDAT", rng.randbytes(20)),
        (b"IEND", b""),
    ]
    chosen = rng.sample(extra, rng.choice((0, 1, 1, 2, 4)))
    before = rng.randint(0, len(chosen))
    parts = [(b"IHDR", head), *chosen[:before], (b"IDAT", data), *chosen[before:], (b"IEND", b"")]
    if rng.random() < 0.1:
        rng.shuffle(parts)
    content = SIGNATURE + b"".join(chunk(*part, crc=0 if rng.random() < 0.03 else None) for part in parts)
    return content[: rng.randrange(len(content))] if rng.random() < 0.1 else content


def _bomb(rng: random.Random, _: str) -> bytes:
    """Small files of many pixels."""
    side = rng.choice((1_000, 9_000, 12_000, 20_000))
    data = zeros(side * (1 + side // 8))
    png = (
        SIGNATURE
        + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
        + chunk(b"IDAT", data)
        + chunk(b"IEND", b"")
    )
    ppm = rng.choice(
        (
            b"P6 99999999 99999999 255\n",
            b"P5 70000 70000 65535 ",
            b"P4 30000 30000 ",
            b"P6 8 8 0\n",
            b"P3 8 8 255 " + b"1 " * 9,
            b"P6 # no end",
            b"P7\nWIDTH 8\n",
            b"Pf 8 8 -1.0\n",
            b"P6 -8 8 255\n",
            b"P6 8 8 99999999999999\n",
        )
    )
    bmp = bytearray(encoded(noise(rng, 8, 8), "BMP"))
    struct.pack_into(
        "<ii", bmp, 18, *rng.choice(((100_000, 100_000), (8, -8), (8, -(2**31)), (0, 0), (-8, 8), (2**31 - 1, 1)))
    )
    gif = bytearray(encoded(noise(rng, 8, 8), "GIF"))
    struct.pack_into("<HH", gif, 6, *rng.choice(((65535, 65535), (0, 0), (1, 1))))
    jpeg = bytearray(encoded(noise(rng, 8, 8), "JPEG"))
    place = jpeg.index(b"\xff\xc0") + 5
    struct.pack_into(
        ">HH", jpeg, place, *rng.choice(((65535, 65535), (0, 8), (8, 0), (0, 0), (9_000, 9_000), (1, 65535)))
    )
    return bytes(rng.choice((png, ppm, bmp, gif, jpeg)))


def _inside(rng: random.Random, form: str) -> bytes:
    """Bytes exchanged behind the head of a file, or its end lost."""
    image = noise(rng, 32, 32)
    many = {"save_all": True, "append_images": [noise(rng, 32, 32), noise(rng, 16, 16)]}
    options = many if form in ("GIF", "PNG", "WEBP", "TIFF") and rng.random() < 0.5 else {}
    if form == "TIFF":
        options["compression"] = rng.choice((None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "tiff_jpeg"))
    content = bytearray(
        encoded(image.convert("CMYK") if form == "JPEG" and rng.random() < 0.3 else image, form, **options)
    )
    for _ in range(rng.choice((1, 3, 30))):
        at = rng.randrange(min(rng.choice((16, 60, len(content) - 1)), len(content) - 1), len(content))
        content[at] = rng.choice((0, 255, rng.randrange(256)))
    return bytes(content[: rng.randrange(20, len(content))] if rng.random() < 0.3 else content)


def _tiff(rng: random.Random, _: str) -> bytes:
    """A TIFF written by hand, with tags of any value."""
    order = rng.choice("<>")
    pixels = rng.randbytes(rng.choice((192, 192, 64, 3, 0)))
    tags = {
        256: (3, 8),
        257: (3, 8),
        258: (3, rng.choice((8, 8, 16, 32, 1, 0, 64))),
        259: (3, rng.choice((1, 1, 5, 7, 8, 32773, 50000, 34925, 99))),
        262: (3, rng.choice((2, 2, 1, 0, 3, 5, 6, 8, 32803))),
        273: (4, rng.choice((8, 8, 0, 2**32 - 1))),
        274: (3, rng.choice((1, 6, 9, 0))),
        277: (3, rng.choice((3, 3, 1, 4, 5, 0, 65535))),
        278: (3, rng.choice((8, 8, 0, 1, 65535))),
        279: (4, rng.choice((len(pixels), 0, 2**32 - 1))),
        284: (3, rng.choice((1, 1, 2))),
        339: (3, rng.choice((1, 1, 2, 3, 9))),
    }
    for tag in rng.sample(sorted(tags), rng.choice((0, 0, 1, 2))):
        tags[tag] = rng.choice(((3, rng.choice((0, 1, 65535))), (4, 2**32 - 1), (2, 0), (12, 8), (99, 1)))
    if rng.random() < 0.2:
        del tags[rng.choice(sorted(tags))]
    at = 8 + len(pixels)
    block = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", at) + pixels
    block += struct.pack(f"{order}H", len(tags))
    for tag, (kind, value) in sorted(tags.items()):
        packed = struct.pack(f"{order}HH", value & 0xFFFF, 0) if kind == 3 else struct.pack(f"{order}I", value)
        block += struct.pack(f"{order}HHI", tag, kind, rng.choice((1,) * 30 + (3, 2**31))) + packed
    return block + struct.pack(f"{order}I", rng.choice((0, 0, at, 2**32 - 1)))


def _foreign(rng: random.Random, _: str) -> bytes:
    """Files of another kind than their suffix says."""
    image = noise(rng, 8, 8)
    return rng.choice(
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n",
            b"<svg xmlns='x'/>",
            b"<html>404",
            b"PK\x03\x04" + rng.randbytes(40),
            b"%PDF-1.4\n",
            b"8BPS\0\1" + rng.randbytes(30),
            b"\0\0\1\0\1\0" + rng.randbytes(40),
            b"RIFF\xff\xff\xff\xffWEBPVP8X" + rng.randbytes(30),
            b"RIFF\x10\0\0\0WEBPVP8 ",
            b"GIF89a",
            b"GIF89a" + rng.randbytes(40),
            b"\xff\xd8\xff",
            b"\xff\xd8" + rng.randbytes(60),
            b"BM" + rng.randbytes(60),
            b"II*\0",
            b"MM\0*\0\0\0\x08\xff\xff",
            b"\0\0\0\x0cjP  \r\n\x87\n" + rng.randbytes(40),
            b"\0\0\0\x20ftypavif" + rng.randbytes(60),
            b"\0\0\0\x18ftypheic" + rng.randbytes(60),
            b"qoif" + struct.pack(">II", 2**31, 2**31) + b"\3\0",
            b"DDS |\0\0\0" + rng.randbytes(120),
            b"\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\x18\x20",
            b"#define x_width 8\n#define x_height 8\nstatic char x_bits[] = {",
            b"\xd7\xcd\xc6\x9a" + rng.randbytes(60),
            b"SIMPLE  =                    T",
            b"\x0a\x05\x01\x08" + rng.randbytes(124),
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            *(
                encoded(image, form)
                for form in (
                    "PNG",
                    "JPEG",
                    "GIF",
                    "BMP",
                    "WEBP",
                    "TIFF",
                    "PPM",
                    "ICO",
                    "TGA",
                    "PCX",
                    "SGI",
                    "JPEG2000",
                    "EPS",
                    "DDS",
                    "IM",
                    "MSP",
                    "PDF",
                    "QOI",
                )
            ),
            encoded(image.convert("I").convert("I;16"), "PNG"),
            encoded(image.convert("F"), "TIFF"),
            encoded(image.convert("I"), "TIFF"),
        )
    )


def _spoiled(rng: random.Random, form: str) -> bytes:
    return spoiled(encoded(noise(rng, 8, 8), form), rng)


DAMAGED = (_png, _png, _png, _bomb, _inside, _inside, _inside, _tiff, _tiff, _foreign, _foreign, _spoiled)
