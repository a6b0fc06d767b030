"""What is understood of a folder: splits and classes by name, litter, what is left out, what is refused."""

import os

import numpy as np
import pytest
from image_files import contents, error_of, load, load_both, write_folder
from odd_folders import write_layout
from PIL import Image

from nas.data.folder_source import split_folders


def test_flat_folder_is_split_and_labelled_in_natural_order(tmp_path):
    write_folder(tmp_path, classes=("class10", "class2"))
    (tmp_path / "notes.txt").write_text("not an image")
    data, test = load_both(f"folder:{tmp_path}")
    assert data.info.class_names == ("class2", "class10")
    assert data.info.flip_safe
    assert len(test.open()) == 4
    assert "1 other file ignored" in data.summary[0]


@pytest.mark.parametrize(
    ("present", "used"), [(("val",), "val"), (("validation",), "validation"), (("val", "test"), "test")]
)
def test_own_test_folder_is_the_test_split(tmp_path, present, used):
    """A third split ranks candidates, but where `search_fraction` is set, as it is in the files of earlier runs."""
    write_folder(tmp_path / "train")
    for number, name in enumerate(present):
        write_folder(tmp_path / name, per_class=2, seed=number + 1)
    data, test = load_both(f"folder:{tmp_path}", search_fraction=0.2)
    expected = {np.asarray(Image.open(path)).transpose(2, 0, 1).tobytes() for path in (tmp_path / used).rglob("*.png")}
    assert contents(test.open()) == expected
    assert len(data.train) + len(data.search) == 30
    assert ("validation is not used" in data.summary[0]) == (len(present) == 2)


def test_ten_digit_folders_are_not_flipped(tmp_path):
    assert not load(f"folder:{write_folder(tmp_path, per_class=3, classes=tuple('0123456789'))}").info.flip_safe


def test_problems_of_folders_are_listed_together(tmp_path):
    write_folder(tmp_path / "train")
    write_folder(tmp_path / "test", per_class=2, classes=("cat", "dog", "emu"))
    message = error_of(f"folder:{tmp_path}").message
    assert f"classes of {tmp_path / 'train'} that {tmp_path / 'test'} lacks: owl" in message
    assert f"classes of {tmp_path / 'test'} that {tmp_path / 'train'} lacks: emu" in message


def test_of_a_folder_without_two_classes_it_is_said_what_is_there_instead(tmp_path):
    def said(name):
        message = error_of(f"folder:{tmp_path / name}").message
        return message.partition(f"at least 2 class folders are needed in {tmp_path / name}, found ")[2]

    write_folder(tmp_path / "one", classes=("cat",))
    assert said("one") == "1: only cat"
    (tmp_path / "one" / "dog").mkdir()
    assert said("one") == "1: only cat, 1 folder more without images (dog)"
    (tmp_path / "empty").mkdir()
    assert said("empty") == "0: the folder is empty"
    for name in ("cat", "dog"):
        (tmp_path / "bare" / name).mkdir(parents=True)
    assert said("bare") == "0: 2 folders without images (cat, dog)"
    write_folder(tmp_path / "of", per_class=2, classes=("flat",))
    (tmp_path / "of" / "flat").rename(tmp_path / "flat")
    first = min(path.name for path in (tmp_path / "flat").iterdir())
    assert said("flat") == f"0: 2 images in no class folder, such as {first}"
    assert f"without labels: images:{tmp_path / 'flat'}" in error_of(f"folder:{tmp_path / 'flat'}").hint
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "a.txt").touch()
    assert said("words") == "0: 1 file, none of them an image (.txt)"


def test_the_folder_inside_is_suggested(tmp_path):
    write_folder(tmp_path / "pets" / "train")
    assert error_of(f"folder:{tmp_path}").hint == f'did you mean "folder:{tmp_path / "pets"}"?'


def test_splits_without_class_folders_are_not_taken_for_classes(tmp_path):
    write_folder(tmp_path, classes=("train", "test"))
    assert "no train/ with a folder for each class" in error_of(f"folder:{tmp_path}").message


def test_an_archive_is_told_to_be_unpacked(tmp_path):
    path = tmp_path / "pets.zip"
    path.write_bytes(b"PK")
    assert "unpack" in error_of(f"folder:{path}").hint


# --- layouts that are understood ---


def counts(root, **options):
    """Images of train and search together where search is carved, else of each; of the test split; and the classes."""
    data, test = load_both(f"folder:{root}", **options)
    own = "search:" in data.summary[1]
    seen = (len(data.train), len(data.search)) if own else (len(data.train) + len(data.search),)
    carved = "carved" in data.summary[1]
    return (*seen, 0 if test is None or carved else len(test.open())), data.info.class_names


@pytest.mark.parametrize(
    "layout",
    [
        "Train/a Train/b Test/a Test/b",
        "TRAIN/a TRAIN/b VAL/a VAL/b",
        "training/a training/b testing/a testing/b",
        "training_set/a training_set/b test_set/a test_set/b",
        "train_img/a train_img/b dev_img/a dev_img/b",
        "TrainData/a TrainData/b Evaluation/a Evaluation/b",
        "train2017/a train2017/b val2017/a val2017/b",
        "seg_train/seg_train/a seg_train/seg_train/b seg_test/seg_test/a seg_test/seg_test/b seg_pred/seg_pred",
        "train/train/a train/train/b valid/a valid/b notes.txt",
    ],
)
def test_two_splits_in_every_usual_spelling(tmp_path, layout):
    write_layout(tmp_path, layout)
    assert counts(tmp_path) == ((12, 12), ("a", "b"))
    summary = load(f"folder:{tmp_path}").summary[0]
    folders = {place.partition("/")[0] for place in layout.split()}
    assert all(folder in summary or folder == "notes.txt" for folder in folders)
    assert "2 classes (a, b)" in summary


@pytest.mark.parametrize(
    "layout", ["train/a train/b val/a val/b test/a test/b", "Train/a Train/b dev/a dev/b Eval/a Eval/b"]
)
def test_a_third_split_ranks_candidates_whole(tmp_path, layout):
    write_layout(tmp_path, layout)
    assert counts(tmp_path) == ((12, 12, 12), ("a", "b"))
    names = [place.partition("/")[0] for place in layout.split()]
    data, test = load_both(f"folder:{tmp_path}")
    for name, images in zip(names[::2], (data.train, data.search, test.open()), strict=True):
        paths = (tmp_path / name).rglob("*.png")
        assert contents(images) == {np.asarray(Image.open(path)).transpose(2, 0, 1).tobytes() for path in paths}
    assert "search: the data's own validation split" in data.summary[1]


def test_images_in_two_splits_stay_in_the_later_one(tmp_path):
    write_layout(tmp_path, "train/a train/b val/a val/b test/a test/b")
    for number, (target, source) in enumerate((("train", "val"), ("train", "test"), ("val", "test"))):
        (tmp_path / target / "a" / f"twin{number}.png").write_bytes(
            (tmp_path / source / "a" / f"{number}.png").read_bytes()
        )
    assert counts(tmp_path) == ((12, 12, 12), ("a", "b"))
    summary = load(f"folder:{tmp_path}").summary[1]
    assert "2 of train that are also in search or test, 1 of search that are also in test" in summary


@pytest.mark.parametrize(
    ("layout", "classes"),
    [
        ("train car bus", ("bus", "car", "train")),  # a split has class folders
        ("test car bus", ("bus", "car", "test")),
        ("a/images b/images", ("a", "b")),
        ("a/x a/y b/z", ("a", "b")),
        ("a/x b/x a b", ("a", "b")),
    ],
)
def test_classes_of_any_name_and_depth(tmp_path, layout, classes):
    write_layout(tmp_path, layout)
    assert load(f"folder:{tmp_path}").info.class_names == classes


def test_litter_is_left_out_and_counted(tmp_path):
    write_layout(tmp_path, "a b __MACOSX/a @eaDir a/.ipynb_checkpoints b/@eaDir a/Thumbs.db b/desktop.ini .DS_Store")
    (tmp_path / "yak" / ".git").mkdir(parents=True)
    (tmp_path / "a" / "._0.png").write_bytes(b"AppleDouble")
    (tmp_path / "more.txt").touch()
    data, test = load_both(f"folder:{tmp_path}")
    assert len(data.train) + len(data.search) + len(test.open()) == 12
    assert "9 system files and folders left out: .DS_Store, ._0.png, .git, .ipynb_checkpoints" in data.summary[0]
    assert "1 class folder without images left out: yak" in data.summary[0]
    assert "1 other file ignored" in data.summary[0]


def test_other_files_are_counted_by_kind(tmp_path):
    write_layout(tmp_path, "a b a/1.heic a/2.HEIC b/meta.csv")
    assert "3 other files ignored (.heic 2, .csv 1)" in load(f"folder:{tmp_path}").summary[0]


def test_folders_inside_class_folders_are_said_for_others_take_these_for_the_classes(tmp_path):
    """timm's and `datasets`' image folders label by the innermost folder, torchvision's by the outermost."""
    write_layout(tmp_path, "train/animal/cat train/animal/dog train/vehicle/car test/animal/cat test/vehicle/car")
    data = load(f"folder:{tmp_path}")
    assert data.info.class_names == ("animal", "vehicle")
    inside = "images of 3 folders inside class folders are of these classes: animal/cat, animal/dog, vehicle/car"
    assert inside in data.summary[0]


def test_the_folder_meant_is_suggested_however_deep(tmp_path):
    write_layout(tmp_path, "ILSVRC/Data/CLS-LOC/train/a ILSVRC/Data/CLS-LOC/train/b")
    write_layout(tmp_path, "ILSVRC/Data/CLS-LOC/val/a ILSVRC/Data/CLS-LOC/val/b", seed=1)
    meant = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    assert error_of(f"folder:{tmp_path}").hint == f'did you mean "folder:{meant}"?'
    assert counts(meant) == ((12, 12), ("a", "b"))


def test_a_test_folder_without_class_folders_has_no_labels(tmp_path):
    write_layout(tmp_path, "train/a train/b test")
    assert counts(tmp_path)[0] == (10, 0)  # a test split is carved
    assert (
        "test/ has 6 images in no class folder, so no labels, and is not used" in load(f"folder:{tmp_path}").summary[0]
    )
    write_layout(tmp_path, "val/a val/b", seed=1)
    assert counts(tmp_path)[0] == (12, 12)
    assert "validation is the test split" in load(f"folder:{tmp_path}").summary[0]


def test_folders_of_any_name_and_globs_are_named_in_order(tmp_path):
    write_layout(tmp_path, "p,1/a p,1/b q/a q/b r/a r/b train-1/a train-2/b train-2/a test-x/a test-x/b")
    both = f"folder:{tmp_path / 'p,1'},{tmp_path / 'q'}"
    data, test = load_both(both)
    assert (len(data.train) + len(data.search), len(test.open())) == (12, 12)
    data, test = load_both(f"{both},{tmp_path / 'r'}")
    assert (len(data.train), len(data.search), len(test.open())) == (12, 12, 12)
    data, test = load_both(f"folder:{tmp_path}/t*")
    assert (len(data.train) + len(data.search), len(test.open())) == (18, 12)
    data, test = load_both(f"folder:{tmp_path}/train-*,{tmp_path}/q")
    assert (len(data.train) + len(data.search), len(test.open())) == (18, 12)


def test_a_link_upwards_ends(tmp_path):
    write_layout(tmp_path, "a b")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert counts(tmp_path)[0] == (10, 0)


def test_names_that_would_move_a_cursor_are_escaped_and_bytes_that_are_no_text_refused(tmp_path):
    write_layout(tmp_path, "ä b")
    (tmp_path / "b").rename(tmp_path / "\x1b[31mb\n")
    assert "2 classes (\\x1b[31mb\\n, ä)" in load(f"folder:{tmp_path}").summary[0]
    (tmp_path / "ä").rename(tmp_path / os.fsdecode(b"\xff"))
    assert "names are not UTF-8: \\udcff" in error_of(f"folder:{tmp_path}").message


# --- layouts that are refused ---


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ("foo/a foo/b bar/a bar/b", ["the folders of", "(bar, foo) hold the same folders (a, b)"]),
        ("fold1/a fold1/b fold2/a fold2/b fold3/a fold3/b", ["hold the same folders (a, b)"]),
        ("cat/train cat/test dog/train dog/test", ["the splits have to be the outer folders"]),
        ("cat/train cat/test dog/train", ["the splits have to be the outer folders"]),
        ("cat/train cat/test dog", ["the splits have to be the outer folders"]),
        ("entrenamiento/a entrenamiento/b entrenamiento/c prueba/a prueba/b", ["hold the same folders (a, b)"]),
        ("tr/a tr/b va/a va/c te/a te/b", ["(te, tr, va) hold the same folders (a, b): which are the classes?"]),
        ("images masks", ["has images beside masks: these are no classes"]),
        ("JPEGImages SegmentationClass Annotations/1.xml", ["has JPEGImages beside SegmentationClass"]),
        ("train/images train/labels test/images test/labels", ["has images beside labels: these are no classes"]),
        ("train/a train/b test/a test/b eval/a eval/b", ["eval", "test claim one split, test"]),
        ("train/a train/b Train/a Train/b", ["claim one split, train"]),
        ("val/a val/b test/a test/b", ["has test, val, but no train/"]),
        ("train_val/a train_val/b test/a test/b", ["no train/"]),
        ("train test", ["no train/ with a folder for each class"]),
        ("train/a train/b val", ["val holds images, but no class folders"]),
        ("train/a train/b val/images", ["val holds images, but no class folders"]),
        ("train/a train/b train/x.png test/a test/b", ["train has 1 image in no class folder: x.png"]),
        ("train/a train/b holdout/a holdout/b", ["beside it are holdout: splits or classes?"]),
        ("train/steam train/diesel car bus", ["beside it are bus, car: splits or classes?"]),
        ("val test train/a train/b dev/a dev/b", ["claim one split, validation", "val holds images, but no"]),
    ],
)
def test_what_is_half_understood_is_an_error(tmp_path, layout, words):
    error = error_of(f"folder:{write_layout(tmp_path, layout)}")
    for some in words:
        assert some in error.message
    assert error.hint


def test_a_class_that_a_split_lacks_can_be_left_out(tmp_path):
    write_layout(tmp_path, "train/a train/b train/c val/a val/b test/a test/b test/c test/d")
    error = error_of(f"folder:{tmp_path}")
    assert f"classes of {tmp_path / 'train'} that {tmp_path / 'val'} lacks: c" in error.message
    assert f"classes of {tmp_path / 'test'} that {tmp_path / 'train'} lacks: d" in error.message
    assert "data.skip_small_classes=true" in error.hint
    assert "data.search_fraction=0.2" in error.hint
    assert counts(tmp_path, skip_small_classes=True) == ((12, 12, 12), ("a", "b"))
    assert (
        "left out 2 classes not in every split: c, d" in load(f"folder:{tmp_path}", skip_small_classes=True).summary[0]
    )


def test_folders_of_a_list_are_checked_as_any(tmp_path):
    write_layout(tmp_path, "one/train/a one/train/b one/test/a one/test/b two/a two/b train/a train/b")
    assert "hold the same folders (a, b)" in error_of(f"folder:{tmp_path / 'one'},{tmp_path / 'two'}").message
    assert "but says train" in error_of(f"folder:{tmp_path / 'two'},{tmp_path / 'train'}").message
    assert "no such folder" in error_of(f"folder:{tmp_path / 'two'},{tmp_path / 'three'}").message
    assert "all names that match have to say a split" in error_of(f"folder:{tmp_path}/t*").message


def test_the_folders_of_splits_are_known_to_others(tmp_path):
    write_layout(tmp_path, "Train/a Train/b Test/a Test/b")
    assert split_folders("x", tmp_path) == {"train": tmp_path / "Train", "test": tmp_path / "Test"}
    assert split_folders("x", tmp_path / "Train") == {"train": tmp_path / "Train"}


@pytest.mark.parametrize(
    "make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to("no")]
)
def test_what_is_named_like_an_image_and_never_ends_is_unreadable_at_once(tmp_path, make, monkeypatch):
    monkeypatch.setattr("nas.data.folder_source._MOST_BYTES", 1 << 20)
    write_folder(tmp_path, classes=("a", "b"))
    make(tmp_path / "a" / "pipe.png")
    assert "pipe.png" in error_of(f"folder:{tmp_path}").message
