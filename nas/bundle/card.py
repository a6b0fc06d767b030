"""The README.md of a model bundle: a Hugging Face model card. Metrics, usage, limits, how to reproduce it."""

import json
import math
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from nas.arch import STEMS, Architecture, Backbone, channels_of
from nas.base import LATENCIES, LATENCY, plural, visible
from nas.runs import Conditions, interval_key, retrained_rows

TAGS = ["image-classification", "vision-transformer", "neural-architecture-search"]
LIBRARIES = {"timm": "timm", "pt2": "pytorch", "onnx": "onnx", "onnx-int8": "onnx", "openvino": "openvino"}
"""What the hub calls that which loads a format."""
HUB_NAME = "USER/NAME"
"""Stands on the card for the name of its repository on the hub."""

MOST_CLASSES = 100  # named on the card; ImageNet's thousand are for programs to read

OPENED = """image = ImageOps.exif_transpose(Image.open("image.png")).convert("{mode}")
short = min(image.size)
image = image.resize([int({side} * side / short) for side in image.size], Image.Resampling.BICUBIC)
left, top = (round((side - {S}) / 2) for side in image.size)
pixels = numpy.asarray(image.crop((left, top, left + {S}, top + {S})), numpy.float32).reshape({S}, {S}, {C})
mean, std = {mean}, {std}
images = ((pixels / 255 - mean) / std).transpose(2, 0, 1)[None].astype(numpy.float32)
"""
"""From a file to images [1, C, S, S] with Pillow and NumPy alone: what timm's transform does, on an upright image."""

NAMES = """names = json.loads(Path({table}).read_text(encoding="utf-8"))["preprocessing"]["class_names"]
"""

SNIPPETS = {
    "timm": """With timm, after `import nas` (of vit-front, which found it), which teaches it the architecture:

```python
import nas
import timm
import torch
from PIL import Image, ImageOps

model = timm.create_model({source}, pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
images = transform(ImageOps.exif_transpose(Image.open("image.png")).convert("{mode}"))[None]
with torch.no_grad():
    logits = model(images)
print(model.pretrained_cfg["label_names"][int(logits[0].argmax())])
```

Without `pretrained=True` timm builds it with random weights. `num_classes=N` gives it a fresh classifier.
`features_only=True` makes it a backbone for detection and segmentation: a list of feature maps, one a layer of
`out_indices`; by default of every layer whose tokens lie on a square grid.
""",
    "pt2": """With torch alone:

```python
import json
from pathlib import Path

import numpy
import torch
from PIL import Image, ImageOps

{opened}
model = torch.export.load({pt2}).module()
with torch.no_grad():
    logits = model(torch.from_numpy(images))
{names}print(names[int(logits[0].argmax())])
```
""",
    "onnx": """With ONNX Runtime; the file holds the names of the classes as well:

```python
import json

import numpy
import onnxruntime
from PIL import Image, ImageOps

{opened}
session = onnxruntime.InferenceSession({onnx}, providers=["CPUExecutionProvider"])
(logits,) = session.run(["logits"], {{"images": images}})
names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
print(names[int(logits[0].argmax())])
```
""",
    "openvino": """With OpenVINO; without the hint it may compute in bf16:

```python
import json
from pathlib import Path

import numpy
import openvino
from PIL import Image, ImageOps

{opened}
model = openvino.compile_model({openvino}, "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})
logits = model({{"images": images}})["logits"]
{names}print(names[int(logits[0].argmax())])
```
""",
}
SNIPPETS["onnx-int8"] = SNIPPETS["onnx"].replace("Runtime;", "Runtime in eight bits;").replace("{onnx}", "{int8}")
CODE = frozenset({"pt2"})
"""Formats that can run code of their maker when they are loaded; the others are data."""


def model_card(
    name: str, architecture: Architecture, backbone: Backbone, table: Mapping[str, Any], provenance: Mapping[str, Any]
) -> str:
    """Markdown with Hugging Face front matter.

    The name is that of the bundle's folder: the snippets load it from the folder above. `table` is what metrics.json
    holds (the front's row, and per format its files and `max_delta`), `provenance` what provenance.json does.
    """
    C, S, formats = backbone.in_chans, backbone.image_size, table["formats"]
    paths = {"source": f"local-dir:{name}", "pt2": f"{name}/model.pt2", "onnx": f"{name}/model.onnx"}
    paths["int8"] = f"{name}/model_int8.onnx"
    paths["openvino"] = f"{name}/openvino_model.xml"
    paths["table"] = f"{name}/metrics.json"
    prepared = table["preprocessing"]
    side = math.floor(S / prepared["crop_pct"])
    values = {"C": C, "S": S, "side": side, "mode": "L" if C == 1 else "RGB"}
    values |= {key: [round(value, 6) for value in prepared[key]] for key in ("mean", "std")}
    values |= {key: json.dumps(path, ensure_ascii=False) for key, path in paths.items()}
    values |= {"opened": OPENED.format(**values), "names": NAMES.format(**values)}
    snippets = "\n".join(SNIPPETS[kind].format(**values) for kind in formats)
    by_timm = f"; after `import nas`, timm takes `hf-hub:{HUB_NAME}` for `local-dir:`" if "timm" in formats else ""
    place = (
        f"Each loads the folder `{_text(name)}`, takes any batch size, and names what is on `image.png`. From the "
        f"Hugging Face hub the folder comes by `hf download {HUB_NAME} --local-dir {_text(shlex.quote(name))}`"
        f"{by_timm}.\n"
    )
    stem = "" if architecture.stem == "patch" else f"a stem of {STEMS[architecture.stem].words}, "
    summary = (
        f"A Vision Transformer found by architecture search: {plural(architecture.depth, 'layer')}, "
        f"{channels_of(architecture)}, {stem}{S}x{S} pixels, {backbone.num_classes} classes. "
        f"Architecture `{architecture.digest}`, in `architecture.json`."
    )
    resized = prepared["interpolation"] + (f", the shorter side to {side} px" if side > S else "")
    normalised = (
        f"Images are turned upright as their EXIF orientation says, resized ({resized}) and cropped to {S}x{S}, "
        f"scaled to 0..1 and normalised by mean {_triple(prepared['mean'])} and standard deviation "
        f"{_triple(prepared['std'])}. These and the class names are under `preprocessing` in `metrics.json`.\n"
    )
    sections: dict[str, Iterable[str]] = {
        "Metrics": _metrics(table),
        **({"Training": _training(table["retrained"])} if table.get("retrained") else {}),
        "Use": (place, snippets, normalised, _classes(prepared["class_names"])),
        "Files": _files(formats),
        "Layers": _layers(architecture),
        "Limits": (f"- {limit}" for limit in _limits(table, backbone)),
        "Reproduce": _reproduce(provenance),
    }
    body = "\n\n".join("\n".join((f"## {title}\n", *lines)) for title, lines in sections.items())
    libraries = list(dict.fromkeys(LIBRARIES[kind] for kind in formats))
    about = ModelCardData(
        license=table.get("license"),
        library_name=libraries[0] if libraries else None,
        pipeline_tag="image-classification",
        tags=[TAGS[0], *libraries, *TAGS[1:]],
        model_name=name,
        eval_results=list(_results(table, provenance)) or None,
    )
    return visible(f"---\n{about.to_yaml()}\n---\n\n# {_text(name)}\n\n{summary}\n\n{body}\n")


def _results(table: Mapping[str, Any], provenance: Mapping[str, Any]) -> Iterator[EvalResult]:
    """Accuracy as the hub lists it, a share: of test images where there are any, else of those that chose it."""
    data = str(provenance.get("data") or "images")
    conditions = table.get("conditions") or {}
    split, key = ("test", "test_top1") if table.get("test_top1") is not None else (conditions.get("split"), "top1")
    if (value := table.get(key)) is not None:
        yield EvalResult(
            task_type="image-classification",
            dataset_type=data,
            dataset_name=data,
            dataset_split=split,
            metric_type="accuracy",
            metric_value=round(value / 100, 6),
            metric_name="top-1",
        )


def _classes(names: Sequence[str]) -> str:
    shown = ", ".join(f"{i}: {_text(name)}" for i, name in enumerate(names[:MOST_CLASSES]))
    more = f", and {len(names) - MOST_CLASSES:,} more" if len(names) > MOST_CLASSES else ""
    return f"Classes, by the index of the logit: {shown}{more}."


def _text(words: object) -> str:
    """Words of others as Markdown that shows them as they are: no links, no HTML, no new line."""
    return re.sub(r"([\\`*\[\]<>&|])", r"\\\1", " ".join(str(words).split()))


def _metrics(table: Mapping[str, Any]) -> Iterator[str]:
    conditions = table.get("conditions") or {}
    images = conditions.get("num_images")
    split = f"{table.get('split') or conditions.get('split') or 'unknown'} split"
    accuracy = f"{split}, {images:,} images" if images else split
    batch, threads = conditions.get("latency_batch_size"), conditions.get("latency_threads")
    places = conditions.get("target", "unknown target").split("; ")
    places[0] += f", batch size {batch}, threads {threads}"
    yield "| metric | value | 95 % interval | unit | conditions |"
    yield "| --- | ---: | --- | --- | --- |"
    yield f"| top-1 | {_number(table.get('top1'))} | {_interval(table.get('top1_ci'))} | % | {accuracy} |"
    if table.get("test_top1") is not None:
        interval, count = _interval(table.get("test_top1_ci")), table.get("test_images")
        images = f", {count:,} images" if count else ""
        yield f"| top-1, test | {_number(table['test_top1'])} | {interval} | % | test split{images}, fp32 |"
    for key, label, place in (
        ("balanced_top1", "balanced top-1", accuracy),
        ("test_balanced_top1", "balanced top-1, test", "test split, fp32"),
    ):
        if table.get(key) is not None:
            where = f"{place}; mean over the classes"
            yield f"| {label} | {_number(table[key])} | {_interval(table.get(f'{key}_ci'))} | % | {where} |"
    if eight := table.get("int8"):
        yield from _eight_bits(eight, accuracy)
    yield f"| MACs | {table['macs']:,} | | MACs/image | one image |"
    yield f"| FLOPs | {table['flops']:,} | | FLOPs/image | 2 x MACs |"
    yield f"| parameters | {table['params']:,} | | parameters | |"
    timing = table.get("timing") or {}
    names = dict.fromkeys([LATENCY.name, *(name for name in LATENCIES if table.get(name) is not None)])
    for name, place in zip(names, places, strict=False):
        milliseconds, interval = _number(table.get(name)), _interval(table.get(interval_key(name)))
        where = f"{place}{_doubts(timing.get(name))}"
        yield f"| {LATENCIES[name].label} | {milliseconds} | {interval} | ms/batch | {where} |"
    if batch and batch > 1 and (ms := table.get(LATENCY.name)) is not None:
        place = f"{places[0]}{_doubts(timing.get(LATENCY.name))}"
        yield f"| {LATENCY.label} by the image | {_number(ms / batch)} | | ms/image | {place} |"
    if plain := table.get("plain"):
        kept = {True: ", within the bounds of the search", False: ", which breaks the bounds of the search"}
        of_search = f"the most accurate plain ViT of the search{kept.get(plain.get('keeps_bounds'), '')}"
        place = f"{accuracy}; {of_search}, {plain['shape']}, {plain['weights']}"
        yield f"| {plain['accuracy']}, plain ViT | {_number(plain['value'])} | {_interval(plain['ci'])} | % | {place} |"
        yield f"| MACs, plain ViT | {plain['macs']:,} | | MACs/image | one image |"
    if (chance := table.get("chance")) is not None:
        yield f"| top-1 by chance | {_number(chance)} | | % | one class at random, or always the most frequent |"
    yield ""
    if conditions:
        # In one order: conditions come from a measurement, or from a record of it, which has its keys sorted.
        shown = [name for name in dict.fromkeys([*Conditions.__slots__, *conditions]) if name in conditions]
        yield "Measured under: " + ", ".join(f"{name} {_text(conditions[name])}" for name in shown) + "."


def _doubts(timing: Mapping[str, Any] | None) -> str:
    """Whether a latency is noisy, and the load of the machine when it was measured, as far as that is known."""
    if timing is None:
        return ""
    noise = "; noisy: true, not known within 2 %" if timing["noisy"] else ""
    load = timing["load_average"]
    return noise + ("" if load is None else f"; load average {load:.1f} on {plural(timing['cores'], 'core')}")


def _eight_bits(eight: Mapping[str, Any], place: str) -> Iterator[str]:
    """Rows of the metrics: what the file in eight bits gets right, and how fast it is beside the float one."""
    for prefix, label, where in (
        ("", "", f"{place}, fp32 gets {_number(eight['float_top1'])}"),
        ("test_", ", test", "test split"),
    ):
        top1, lost = eight[f"{prefix}top1"], eight[f"{prefix}lost_points"]
        yield f"| int8: top-1{label} | {_number(top1)} | {_interval(eight[f'{prefix}top1_ci'])} | % | {where} |"
        interval = _interval(eight[f"{prefix}lost_points_ci"])
        yield f"| int8: top-1 lost{label} | {_number(lost)} | {interval} | points | of fp32, on the same images |"
    batch, threads = eight["latency_batch_size"], eight["latency_threads"]
    yield (
        f"| int8: latency over float | {_number(eight['latency_ratio'])} | "
        f"{_interval(eight['latency_ratio_quartiles'])} (quartiles) | | {eight['latency_target']} over fp32, "
        f"batch size {batch}, threads {threads}, {_text(eight['latency_device'])} |"
    )


def _training(retrained: Mapping[str, Any]) -> Iterator[str]:
    """How a network was trained alone, and over all seeds."""
    supernet = f"weights of the supernet {retrained['supernet']}"
    start = {"scratch": "random weights", "inherited": supernet, "timm": "timm's weights"}
    number, epochs = retrained["num_seeds"], retrained["epochs"]
    chosen = f", the best of {number} seeds on the search split" if number > 1 else ""
    yield (
        f"Trained alone for {plural(epochs, 'epoch')} from {start[retrained['from']]}, "
        f"seed {retrained['seed']}{chosen}. The recipe is under `retrained` in `metrics.json`.\n"
    )
    yield f"| architecture | top-1 on the test split, {plural(number, 'seed')}, % | with the supernet's weights, % |"
    yield "| --- | ---: | ---: |"
    for i, row in enumerate(retrained_rows(retrained)):
        first = row.get("from", retrained["from"])
        other = f" from {start[first]}" if first != retrained["from"] else ""
        label = f"{row['name']}, trained the same way{other}" if i else "this one"
        before = row["inherited_test_top1"]
        spread = "" if row["test_top1_sd"] is None else f" ± {row['test_top1_sd']:.2f}"
        yield f"| {label} | {row['test_top1']:.2f}{spread} | {'' if before is None else f'{before:.2f}'} |"


def _triple(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _number(value: float | None) -> str:
    return "not measured" if value is None or math.isnan(value) else f"{value:.4g}"


def _interval(pair: tuple[float, float] | None) -> str:
    return "" if pair is None else f"{pair[0]:.4g} to {pair[1]:.4g}"


def _files(formats: Mapping[str, Any]) -> Iterator[str]:
    yield "| format | file | MB | loading it | greatest logit difference after reloading (batch 1, 2, 7) |"
    yield "| --- | --- | ---: | --- | --- |"
    for kind, written in formats.items():
        deltas = ", ".join(f"{delta:.2g}" for delta in written["max_delta"].values())
        safe = "can run code of its maker" if kind in CODE else "reads data only"
        for i, (file, facts) in enumerate(written["files"].items()):
            of_all = deltas if i == 0 else ""
            yield f"| {kind} | {file} | {facts['size_bytes'] / 1e6:.2f} | {safe} | {of_all} |"


def _layers(architecture: Architecture) -> Iterator[str]:
    yield "| layer | patch tokens | reduced by | attention | heads | hallucinated heads | MLP ratio | FFN rank |"
    yield "| ---: | ---: | --- | --- | ---: | --- | ---: | --- |"
    for i, layer in enumerate(architecture.layers):
        hallucinated = f"{layer.num_hallucinated} ({layer.hallucination})" if layer.hallucination else ""
        yield (
            f"| {i} | {layer.num_tokens} | {layer.reducer or ''} | {layer.attention} | {layer.num_heads} | "
            f"{hallucinated} | {layer.mlp_ratio:g} | {architecture.rank(i) or 'full'} |"
        )


def _limits(table: Mapping[str, Any], backbone: Backbone) -> Iterator[str]:
    formats = table["formats"]
    if table.get("split") == "search":
        yield "Top-1 on the search split is optimistic, because that split chose this architecture."
    if table.get(LATENCY.name) is None:
        yield "Latency was not measured."
    else:
        yield "Latency holds for the device, batch size, threads and precision above, and for nothing else."
    if table.get("int8"):
        yield (
            "int8 was measured on the processor above. One without instructions for products of eight bits (VNNI, dot "
            "products, AMX) is slower, and may round sums differently: measure there before you ship."
        )
    yield "MACs leave out softmax, norms, pooling and element-wise operations; latency contains them."
    yield (
        f"The input size is {backbone.in_chans} x {backbone.image_size} x {backbone.image_size}"
        + (
            ". timm takes others (`img_size=`), for which nothing was measured"
            if "timm" in formats
            else ", and no other"
        )
        + ("; the other files take no other." if "timm" in formats and len(formats) > 1 else ".")
    )
    if CODE.intersection(formats):
        yield (
            "From a stranger load nothing but what reads data only, as the table of files says. Loading `model.pt2` "
            "can run code that its maker put there."
        )
    given = table.get("license")
    said = f"The licence is {given}, as its maker says." if given else "Its maker has not said under which licence."
    yield f"{said} The terms of the data and of the initial weights hold as well."


def _reproduce(provenance: Mapping[str, Any]) -> Iterator[str]:
    if commands := provenance.get("commands"):
        text = "\n".join(commands)
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
        yield f"{fence}sh\n{text}\n{fence}\n"
    yield "Versions, seeds and data hashes are in `provenance.json`."
    if run := provenance.get("run"):
        yield f"Run: {_text(json.dumps(run))}."
