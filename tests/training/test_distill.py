import pytest
import timm
import torch
from torch.nn import functional

from nas.base.errors import ConfigError
from nas.training.distill import Teacher, divergences


def logits(seed, scale=1.0, requires_grad=False):
    values = scale * torch.randn(6, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.requires_grad_(requires_grad)


def gradient(kind, student, teacher, temperature=1.0):
    student = student.detach().clone().requires_grad_()
    divergences(kind, student, teacher, temperature).sum().backward()
    return student.grad


def test_soft_targets_have_the_gradient_of_the_divergence():
    student, teacher = logits(0, requires_grad=True), logits(1)
    log_q, p = functional.log_softmax(student / 2, dim=1), (teacher / 2).softmax(dim=1)
    functional.kl_div(log_q, p, reduction="sum").backward()
    torch.testing.assert_close(gradient("soft", student, teacher, temperature=2.0), student.grad)


def test_hard_targets_are_the_first_choices_as_labels():
    student, teacher = logits(0), logits(1)
    expected = functional.cross_entropy(student, teacher.argmax(dim=1), reduction="none")
    torch.testing.assert_close(divergences("hard", student, teacher, 3.0), expected)


def alpha_divergence(alpha, student, teacher):
    """By its definition, AlphaNet equation 3."""
    q, p = student.softmax(dim=1), teacher.softmax(dim=1)
    if alpha == 1:
        return (p * (p / q).log()).sum(dim=1)
    return (q * ((p / q) ** alpha - 1)).sum(dim=1) / (alpha * (alpha - 1))


@pytest.mark.parametrize("scale", [0.3, 0.55])
def test_alpha_takes_the_gradient_of_the_larger_divergence_where_nothing_is_clipped(scale):
    student, teacher = logits(0, scale, requires_grad=True), logits(1, scale)
    low, high = (alpha_divergence(alpha, student, teacher) for alpha in (-1.0, 1.0))
    chosen = torch.maximum(low, high)
    assert ((low > high).any() and (high > low).any()) or scale == 0.3
    ratio = (teacher.log_softmax(dim=1) - student.log_softmax(dim=1)).exp()
    assert (1 / ratio).max() < 5, "otherwise the clipping acts"
    chosen.sum().backward()
    torch.testing.assert_close(gradient("alpha", student, teacher), student.grad)


def test_clipping_bounds_the_gradient_of_a_student_far_from_the_teacher():
    student, teacher = logits(0, 12.0), logits(1, 12.0)
    assert gradient("alpha", student, teacher).abs().max() <= 10.0
    assert alpha_divergence(-1.0, student, teacher).max() > 1e3


def test_no_gradient_goes_into_the_teacher():
    student, teacher = logits(0, requires_grad=True), logits(1, requires_grad=True)
    for kind in ("soft", "hard", "alpha"):
        divergences(kind, student, teacher, 1.0).sum().backward()
    assert teacher.grad is None


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
    teacher = Teacher(spec, 10, mean, std)
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
        Teacher(spec, 10, (0.5,) * 3, (0.5,) * 3)
    assert caught.value.hint


def test_a_teacher_of_other_classes_is_refused(saved_teacher):
    with pytest.raises(ConfigError, match="has 10 classes, the data has 7"):
        Teacher(saved_teacher[1], 7, (0.5,) * 3, (0.5,) * 3)
