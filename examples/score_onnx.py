"""Top-1 of an exported ONNX model on a folder of images, one folder a class: `python score_onnx.py BUNDLE IMAGES`.

Needs numpy, Pillow and onnxruntime alone. The images are prepared as `preprocessing` in the bundle's metrics.json says.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

bundle, images = map(Path, sys.argv[1:])
how = json.loads((bundle / "metrics.json").read_text())["preprocessing"]
mean, std = np.float32(how["mean"]), np.float32(how["std"])
session = onnxruntime.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
S = session.get_inputs()[0].shape[3]
stored = math.floor(S / how["crop_pct"])


def prepared(path: Path) -> np.ndarray:
    """The image as a model takes it: upright (EXIF), shorter side resized to `stored`, centre cut out, normalised."""
    image = ImageOps.exif_transpose(Image.open(path))
    image = (image.convert("RGBA") if image.mode in ("P", "PA") else image).convert("RGB")
    width, height = (int(stored * side / min(image.size)) for side in image.size)
    image = image.resize((width, height), Image.Resampling[how["interpolation"].upper()])
    left, top = round((width - S) / 2), round((height - S) / 2)
    pixels = np.asarray(image.crop((left, top, left + S, top + S)), np.float32) / 255
    return ((pixels - mean) / std).transpose(2, 0, 1)


right = total = 0
for label, name in enumerate(how["class_names"]):
    for path in sorted(path for path in (images / name).rglob("*") if path.is_file()):
        (logits,) = session.run(["logits"], {"images": prepared(path)[None]})
        right, total = right + int(logits.argmax() == label), total + 1
if not total:
    sys.exit(f"no images in {images}/CLASS, classes: {how['class_names']}")
print(f"top-1 {100 * right / total:.4g} % of {total} images")  # noqa: T201
