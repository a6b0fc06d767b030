import pytest
import timm
import torch
from torch.nn import functional

from nas.base.errors import ConfigError
from nas.data.images import DataInfo
from nas.training.distill import LateTeacher, Teacher, soft_cross_entropy


def logits(seed, requires_grad=False):
    values = torch.randn(6, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.requires_grad_(requires_grad)


def test_soft_targets_have_the_gradient_of_the_divergence_and_none_goes_into_the_teacher():
    student, teacher = logits(0, requires_grad=True), logits(1, requires_grad=True)
    soft_cross_entropy(student, teacher, 2.0).sum().backward()
    found, student.grad = student.grad, None
    assert teacher.grad is None
    log_q, p = functional.log_softmax(student / 2, dim=1), (teacher.detach() / 2).softmax(dim=1)
    functional.kl_div(log_q, p, reduction="sum").backward()
    torch.testing.assert_close(found, student.grad)


def info(classes=10, mean=(0.5,) * 3, std=(0.5,) * 3):
    names = tuple(map(str, range(classes)))
    return DataInfo(class_names=names, mean=mean, std=std, flip_safe=True, hashes={})


@pytest.fixture
def saved_teacher(tmp_path):
    from timm.models import save_for_hf

    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=10, pretrained=False)
    save_for_hf(model, tmp_path / "teacher", model_config={"num_classes": 10})
    return model.eval(), f"local-dir:{tmp_path / 'teacher'}"


def test_a_teacher_sees_the_images_as_it_was_trained_on_them(saved_teacher):
    model, spec = saved_teacher
    mean, std = (0.2, 0.3, 0.4), (0.5, 0.6, 0.7)
    teacher = Teacher(spec, info(mean=mean, std=std))
    size = teacher.size[0]
    pixels = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))

    def normalized(mean, std):
        return (pixels - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)

    own = model.pretrained_cfg
    with torch.no_grad():
        expected = model(normalized(own["mean"], own["std"]))
    torch.testing.assert_close(teacher(normalized(mean, std)), expected, rtol=1e-4, atol=1e-5)
    assert teacher(torch.zeros(3, 3, 8, 8)).shape == (3, 10)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnet18", "not understood"),
        ("timm:no_such_model", "no_such_model"),
        ("local-dir:/no/such/folder", "No such file"),
    ],
)
def test_a_teacher_that_cannot_be_had_is_one_clear_error(spec, message):
    with pytest.raises(ConfigError, match=message) as caught:
        Teacher(spec, info())
    assert caught.value.hint


def test_a_teacher_of_other_classes_is_refused(saved_teacher):
    with pytest.raises(ConfigError, match="has 10 classes, the data has 7"):
        Teacher(saved_teacher[1], info(classes=7))


def test_a_late_teacher_is_loaded_when_it_is_asked_and_draws_nothing(saved_teacher):
    late = LateTeacher(saved_teacher[1], info(), torch.device("cpu"))
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    state = torch.get_rng_state()
    answers = late(images)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(answers, Teacher(saved_teacher[1], info())(images))


def test_a_late_teacher_that_is_gone_is_missed_when_it_is_asked():
    late = LateTeacher("local-dir:/no/such", info(), torch.device("cpu"))
    with pytest.raises(ConfigError, match="--teacher local-dir:/no/such"):
        late(torch.zeros(1, 3, 16, 16))
