"""images/: small picture files of every kind that is read, and what Pillow and CLIP's image
processor make of them.

The processor is CLIPImageProcessorPil, the one that works on uint8 with Pillow's resampler; the
other, on tensors, gives other last bits. It is handed RGB, so that the conversion is the one named
in each place: convert("RGB"), which drops alpha, or over white, which transformers does since 5.
"""

import hashlib
import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.image_transforms import convert_to_rgb

from .common import empty_folder, write_json, write_tensors
from .image_files import all_files

# (shortest edge, side of the crop, padded to a square first)
TARGETS = [
    (28, 28, False), (30, 30, False), (56, 56, False), (28, 28, True), (30, 30, True),
    (37, 24, False),  # crops on all sides
    (21, 30, False), (24, 37, True),  # a crop that is larger: black around it
    (224, 224, False), (336, 336, False), (336, 336, True),
]

# What mixrank does not read although Pillow does, and what the message says.
REFUSED = {
    "grey-16bit.png": "16 bits",  # Pillow: everything above 255 of 65535 is white
    "jpeg-cmyk.jpg": "4 components",
}

# Stored whole, not as hashes: JPEGs, whose decoders differ, and a few to look at.
RAW_RGB = ["rgb-2x3.png", "rgb-28x28.png", "bmp24-core.bmp"]
RAW_PIXELS = [("rgb-61x47.png", target) for target in TARGETS[:8]]
RAW_VALUES = [("rgb-61x47.png", TARGETS[0]), ("rgb-61x47.png", TARGETS[6])]
JPEG_TARGETS = [TARGETS[0], TARGETS[4]]


def is_jpeg(file: str) -> bool:
    return file.endswith(".jpg")


def sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def key(edge: int, crop: int, pad: bool) -> str:
    return f"{edge}-{crop}" + ("-padded" if pad else "")


def open_rgb(data: bytes, over_white: bool = False) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "should be converted to RGBA": that is the caller's say
        image = Image.open(io.BytesIO(data))
        if over_white:
            return convert_to_rgb(image, return_numpy=True)
        return np.array(image.convert("RGB"))


def preprocess(rgb: np.ndarray, edge: int, crop: int, pad: bool) -> tuple[np.ndarray, np.ndarray]:
    """The processor's uint8 pixels [crop, crop, 3] before, and float32 [3, crop, crop] after."""
    kind = LlavaImageProcessorPil if pad else CLIPImageProcessorPil
    options = {"do_pad": True} if pad else {}
    processor = kind(size={"shortest_edge": edge}, crop_size={"height": crop, "width": crop},
                     **options)
    image = Image.fromarray(rgb)
    pixels = processor(image, do_rescale=False, do_normalize=False)["pixel_values"][0]
    values = processor(image)["pixel_values"][0]
    assert pixels.dtype == np.uint8 and values.dtype == np.float32
    assert pixels.shape == values.shape == (3, crop, crop)
    return pixels.transpose(1, 2, 0), values


def expected(file: str, data: bytes, tensors: dict[str, np.ndarray]) -> dict:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image.open(io.BytesIO(data))
    rgb = open_rgb(data)
    row = {"file": file, "width": image.width, "height": image.height, "mode": image.mode}
    if file in REFUSED:
        return row | {"refused": REFUSED[file]}
    row["rgb"] = sha256(rgb)
    if file.endswith(".png"):
        row["over_white"] = sha256(open_rgb(data, over_white=True))
    if is_jpeg(file) or file in RAW_RGB:
        tensors[f"{file}/rgb"] = rgb
    row["pixels"] = {}
    values_hash = hashlib.sha256()
    for target in TARGETS:
        pixels, values = preprocess(rgb, *target)
        row["pixels"][key(*target)] = sha256(pixels)
        values_hash.update(np.ascontiguousarray(values).tobytes())
        name = f"{file}/{key(*target)}"
        if (file, target) in RAW_PIXELS or is_jpeg(file) and target in JPEG_TARGETS:
            tensors[f"{name}/pixels"] = pixels
        if (file, target) in RAW_VALUES:
            tensors[f"{name}/values"] = values
    row["values"] = values_hash.hexdigest()
    if is_jpeg(file):
        del row["rgb"], row["pixels"], row["values"]
    return row


def write(root: Path) -> None:
    folder = empty_folder(root / "images")
    tensors: dict[str, np.ndarray] = {}
    rows = []
    for file, data in all_files().items():
        (folder / file).write_bytes(data)
        rows.append(expected(file, data, tensors))
    write_json(folder / "expected.json", rows)
    write_tensors(folder / "expected.safetensors", tensors)
