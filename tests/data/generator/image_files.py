"""Writers of PNG and BMP that can make every variant of the formats, and the pictures themselves.

Pillow writes few of the variants and is what the files are compared with, so it writes only the
JPEGs. What is drawn is a function of position and of seeded noise: gradients, sharp edges, bars as
of text, and noise, so that a decoder or a resampler that is wrong anywhere is seen.
"""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from .common import random_state

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6  # PNG colour types
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
         (0, 1, 1, 2)]  # x, y, step in x, step in y


# Pictures

def picture(name: str, width: int, height: int, channels: int, noise: int = 24) -> np.ndarray:
    """[height, width, channels] of 0..255."""
    rng = random_state("image", name)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    u, v = x / max(width - 1, 1), y / max(height - 1, 1)
    planes = []
    for c in range(channels):
        a, b, phase = rng.uniform(-1, 1), rng.uniform(-1, 1), rng.uniform(0, 6.3)
        plane = 128 + 70 * (a * (u - 0.5) + b * (v - 0.5)) + 40 * np.sin(9 * u + 5 * v + phase)
        plane += rng.randint(-noise, noise + 1, (height, width)) if noise else 0
        planes.append(plane)
    image = np.stack(planes, axis=-1)
    # Lines of bars, black on light and the reverse: overshoot of the resampler hits both ends.
    for line in range(height // 6, max(height - 4, 0), 9):
        bars = rng.random_sample(width) < 0.5
        rows = image[line:line + 4]
        rows[:, bars] = 0 if line % 2 else 255
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def levels(name: str, width: int, height: int, count: int) -> np.ndarray:
    """[height, width] of 0..count-1: palette indices, or grey of few bits."""
    values = picture(name, width, height, 1, noise=60)[..., 0].astype(int)
    return (values * count // 256).astype(np.uint8)


def palette(name: str, count: int) -> np.ndarray:
    return random_state("palette", name).randint(0, 256, (count, 3)).astype(np.uint8)


# PNG

def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def pack_row(row: np.ndarray, depth: int) -> bytes:
    """row is [width, channels] of samples."""
    samples = row.reshape(-1)
    if depth == 16:
        return samples.astype(">u2").tobytes()
    if depth == 8:
        return samples.astype(np.uint8).tobytes()
    bits = (samples[:, None].astype(int) >> np.arange(depth - 1, -1, -1)) & 1
    return np.packbits(bits.astype(np.uint8).reshape(-1)).tobytes()


def paeth(left: np.ndarray, up: np.ndarray, corner: np.ndarray) -> np.ndarray:
    distance = [abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)]
    return np.where((distance[0] <= distance[1]) & (distance[0] <= distance[2]), left,
                    np.where(distance[1] <= distance[2], up, corner))


def filtered(rows: list[bytes], bytes_per_pixel: int) -> bytes:
    """Each row with the next of the five filters, so that every decoder meets them all."""
    out = bytearray()
    before = np.zeros(len(rows[0]), int)
    for i, row in enumerate(rows):
        this = np.frombuffer(row, np.uint8).astype(int)
        shifted = np.zeros_like(this)
        shifted[bytes_per_pixel:] = this[:-bytes_per_pixel]
        corner = np.zeros_like(this)
        corner[bytes_per_pixel:] = before[:-bytes_per_pixel]
        guess = [0, shifted, before, (shifted + before) // 2, paeth(shifted, before, corner)]
        out.append(i % 5)
        out += ((this - guess[i % 5]) & 255).astype(np.uint8).tobytes()
        before = this
    return bytes(out)


def png(samples: np.ndarray, colour: int, depth: int = 8, interlaced: bool = False,
        colours: np.ndarray | None = None, transparency: bytes | None = None,
        parts: int = 1) -> bytes:
    """samples is [height, width] or [height, width, channels]; parts is the number of IDATs."""
    height, width = samples.shape[:2]
    samples = samples.reshape(height, width, CHANNELS[colour])
    bytes_per_pixel = max(1, CHANNELS[colour] * depth // 8)
    passes = ADAM7 if interlaced else [(0, 0, 1, 1)]
    data = b""
    for x, y, step_x, step_y in passes:
        part = samples[y::step_y, x::step_x]
        if part.size:
            data += filtered([pack_row(row, depth) for row in part], bytes_per_pixel)
    packed = zlib.compress(data, 9)
    out = PNG_SIGNATURE + chunk(
        b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced)))
    if colours is not None:
        out += chunk(b"PLTE", colours.tobytes())
    if transparency is not None:
        out += chunk(b"tRNS", transparency)
    size = -(-len(packed) // parts)
    for i in range(parts):
        out += chunk(b"IDAT", packed[i * size:(i + 1) * size])
    return out + chunk(b"IEND", b"")


# BMP

def bmp(samples: np.ndarray, bits: int, colours: np.ndarray | None = None, top_down: bool = False,
        masks: tuple[int, ...] | None = None, core: bool = False, gap: int = 0,
        compression: int | None = None) -> bytes:
    """samples is [height, width, channels], as R, G, B(, X), or [height, width] of indices.

    masks writes a V4 header with bit fields, core the header of OS/2; gap is the number of unused
    bytes in front of the pixels.
    """
    height, width = samples.shape[:2]
    rows = []
    for row in samples if top_down else samples[::-1]:
        if bits <= 8:
            data = pack_row(row.reshape(width, 1), bits)
        elif masks:
            shifts = [(mask & -mask).bit_length() - 1 for mask in masks]
            words = sum(row[:, c].astype(np.uint32) << shift for c, shift in enumerate(shifts))
            data = words.astype("<u4").tobytes()
        else:
            order = [2, 1, 0, 3][:bits // 8]
            data = np.ascontiguousarray(row[:, order]).tobytes()
        rows.append(data + bytes(-len(data) % 4))
    pixels = b"".join(rows)
    table = b""
    if colours is not None:
        blue_first = colours[:, ::-1].tobytes() if core else np.concatenate(
            [colours[:, ::-1], np.zeros((len(colours), 1), np.uint8)], axis=1).tobytes()
        table = blue_first
    if core:
        info = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        kind = compression if compression is not None else 3 if masks else 0
        info = struct.pack("<IiiHHIIiiII", 108 if masks else 40, width,
                           -height if top_down else height, 1, bits, kind, len(pixels), 2835, 2835,
                           0 if colours is None else len(colours), 0)
        if masks:
            info += struct.pack("<4I", *(*masks, 0)[:4]) + b"BGRs" + bytes(48)
    offset = 14 + len(info) + len(table) + gap
    return (struct.pack("<2sIHHI", b"BM", offset + len(pixels), 0, 0, offset) + info + table
            + bytes(gap) + pixels)


# JPEG

def jpeg(image: np.ndarray, mode: str | None = None, **options) -> bytes:
    out = io.BytesIO()
    source = Image.fromarray(image)
    (source.convert(mode) if mode else source).save(out, "JPEG", **options)
    return out.getvalue()


def exif_orientation(value: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif.tobytes()


def all_files() -> dict[str, bytes]:
    def rgb(name: str, width: int, height: int, **options) -> bytes:
        return png(picture(name, width, height, 3, **options), RGB)

    masks = (0x00FF0000, 0x0000FF00, 0x000000FF, 0xFF000000)
    other_masks = (0xFF000000, 0x00FF0000, 0x0000FF00)
    key = picture("rgb-key.png", 30, 21, 3, noise=0)
    grey_key = picture("grey-key.png", 30, 21, 1, noise=0)
    sixteen = random_state("image", "16 bit").randint(0, 65536, (19, 33, 4))
    large = picture("rgb-large-520x389.png", 520, 389, 3, noise=0) // 16 * 16
    photo = picture("photo", 83, 61, 3, noise=10)
    return {
        "rgb-61x47.png": rgb("rgb-61x47.png", 61, 47),
        "rgb-portrait-37x90.png": rgb("rgb-portrait-37x90.png", 37, 90),
        "rgb-landscape-121x40.png": rgb("rgb-landscape-121x40.png", 121, 40),
        "rgb-1x1.png": rgb("rgb-1x1.png", 1, 1),
        "rgb-2x3.png": rgb("rgb-2x3.png", 2, 3),
        "rgb-3x200.png": rgb("rgb-3x200.png", 3, 200),
        "rgb-200x3.png": rgb("rgb-200x3.png", 200, 3),
        "rgb-1x150.png": rgb("rgb-1x150.png", 1, 150),
        "rgb-28x28.png": rgb("rgb-28x28.png", 28, 28),
        "rgb-28x45.png": rgb("rgb-28x45.png", 28, 45),  # one of the two passes changes nothing
        "rgb-large-520x389.png": png(large, RGB),
        "rgb-noise-64x64.png": png(
            random_state("image", "noise").randint(0, 256, (64, 64, 3)), RGB, parts=5),
        "rgb-key.png": png(key, RGB, transparency=struct.pack(">3H", *key[4, 7].tolist())),
        "rgba.png": png(picture("rgba.png", 53, 38, 4), RGBA),
        "rgba-interlaced.png": png(picture("rgba-interlaced.png", 21, 34, 4), RGBA,
                                   interlaced=True),
        "grey.png": png(picture("grey.png", 45, 60, 1), GREY),
        "grey-alpha.png": png(picture("grey-alpha.png", 40, 31, 2), GREY_ALPHA),
        "grey-key.png": png(grey_key, GREY,
                            transparency=struct.pack(">H", int(grey_key[4, 7, 0]))),
        "grey-1bit.png": png(levels("grey-1bit.png", 43, 30, 2), GREY, 1),
        "grey-2bit.png": png(levels("grey-2bit.png", 43, 30, 4), GREY, 2),
        "grey-4bit.png": png(levels("grey-4bit.png", 43, 30, 16), GREY, 4),
        "grey-1bit-interlaced.png": png(levels("grey-1bit-interlaced.png", 13, 11, 2), GREY, 1,
                                        interlaced=True),
        "palette-8bit.png": png(levels("palette-8bit.png", 47, 33, 256), PALETTE, 8,
                                colours=palette("palette-8bit.png", 256)),
        "palette-4bit.png": png(levels("palette-4bit.png", 47, 33, 16), PALETTE, 4,
                                colours=palette("palette-4bit.png", 16)),
        "palette-1bit.png": png(levels("palette-1bit.png", 47, 33, 2), PALETTE, 1,
                                colours=palette("palette-1bit.png", 2)),
        "palette-alpha.png": png(levels("palette-alpha.png", 47, 33, 64), PALETTE, 8,
                                 colours=palette("palette-alpha.png", 64),
                                 transparency=bytes(range(0, 200, 5))),
        # Indices beyond the end of the palette are black.
        "palette-short.png": png(levels("palette-short.png", 29, 24, 32), PALETTE, 8,
                                 colours=palette("palette-short.png", 20)),
        "palette-interlaced.png": png(levels("palette-interlaced.png", 27, 20, 16), PALETTE, 4,
                                      interlaced=True, colours=palette("interlaced", 16)),
        "rgb-interlaced.png": png(picture("rgb-interlaced.png", 39, 29, 3), RGB, interlaced=True),
        "rgb-16bit.png": png(sixteen[..., :3], RGB, 16),
        "rgba-16bit.png": png(sixteen, RGBA, 16),
        "grey-alpha-16bit.png": png(sixteen[..., :2], GREY_ALPHA, 16),
        "grey-16bit.png": png(sixteen[..., 0], GREY, 16),
        "bmp24-47x35.bmp": bmp(picture("bmp24", 47, 35, 3), 24),
        "bmp24-top-down.bmp": bmp(picture("top-down", 22, 37, 3), 24, top_down=True, gap=6),
        "bmp24-core.bmp": bmp(picture("core", 22, 17, 3), 24, core=True),
        "bmp32.bmp": bmp(picture("bmp32", 33, 26, 4), 32),
        "bmp32-masks.bmp": bmp(picture("masks", 33, 26, 4), 32, masks=masks),
        "bmp32-masks-rgb.bmp": bmp(picture("masks-rgb", 25, 26, 3), 32, masks=other_masks),
        "bmp8.bmp": bmp(levels("bmp8", 37, 29, 256), 8, colours=palette("bmp8", 256)),
        "bmp8-short.bmp": bmp(levels("bmp8-short", 37, 29, 32), 8, colours=palette("short", 20),
                              gap=10),
        "bmp8-top-down.bmp": bmp(levels("bmp8-top-down", 30, 41, 200), 8, top_down=True,
                                 colours=palette("bmp8-top-down", 200)),
        "bmp4.bmp": bmp(levels("bmp4", 35, 29, 16), 4, colours=palette("bmp4", 16)),
        "bmp1.bmp": bmp(levels("bmp1", 35, 29, 2), 1, colours=palette("bmp1", 2)),
        "jpeg-444.jpg": jpeg(photo, quality=90, subsampling=0),
        "jpeg-422.jpg": jpeg(photo, quality=85, subsampling=1),
        "jpeg-420.jpg": jpeg(photo, quality=85, subsampling=2),
        "jpeg-420-odd-33x49.jpg": jpeg(picture("odd", 33, 49, 3), quality=75, subsampling=2),
        "jpeg-grey.jpg": jpeg(photo, mode="L", quality=85),
        "jpeg-progressive.jpg": jpeg(photo, quality=85, subsampling=2, progressive=True),
        "jpeg-restart.jpg": jpeg(photo, quality=60, subsampling=2, restart_marker_blocks=3),
        "jpeg-rgb.jpg": jpeg(photo, quality=85, keep_rgb=True),
        "jpeg-orientation.jpg": jpeg(picture("orientation", 48, 30, 3, noise=4), quality=85,
                                     exif=exif_orientation(6)),
        "jpeg-1x1.jpg": jpeg(picture("jpeg-1x1.jpg", 1, 1, 3), quality=85),
        "jpeg-photo-160x120.jpg": jpeg(picture("jpeg-photo", 160, 120, 3, noise=3), quality=75),
        "jpeg-cmyk.jpg": jpeg(photo, mode="CMYK", quality=85),
    }
