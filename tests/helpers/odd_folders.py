"""Folders as people have them: images of noise at the paths of a layout."""

from pathlib import Path

from image_files import encoded_images


def write_layout(root: Path, layout: str, *, per_place: int = 6, seed: int = 0) -> Path:
    """Different images in every folder of a layout, such as `Train/cat Train/dog`; a name with a dot is a file."""
    places = layout.split()
    folders = [place for place in places if "." not in Path(place).name.lstrip(".")]
    images = iter(encoded_images(per_place * len(folders) + len(places), seed))
    for place in places:
        path = root / place
        if place not in folders:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(next(images) if path.suffix == ".png" else b"text")
            continue
        path.mkdir(parents=True, exist_ok=True)
        for number in range(per_place):
            (path / f"{number}.png").write_bytes(next(images))
    return root
