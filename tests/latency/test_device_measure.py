"""The script that goes to a device judges its timings as the meter here does."""

import numpy as np
import pytest

from nas.latency.device_measure import TOLERANCE, PackError, interval, is_noisy, load_average, model_path, processor


@pytest.mark.parametrize("seed", range(3))
def test_an_interval_holds_the_median_and_narrows_with_more_samples(seed):
    rng = np.random.default_rng(seed)
    few, many = rng.normal(5, 0.5, 15).tolist(), rng.normal(5, 0.5, 600).tolist()
    for samples in (few, many):
        low, high = interval(samples)
        assert low <= np.median(samples) <= high
    assert np.diff(interval(many)) < np.diff(interval(few))


def test_an_interval_holds_the_true_median_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = sum(low <= 0 <= high for low, high in (interval(rng.normal(0, 1, 25).tolist()) for _ in range(400)))
    assert held / 400 > 0.92  # of 95 %


def test_what_is_known_within_the_tolerance_is_not_noisy():
    steady = [5 + TOLERANCE * x for x in (-0.1, -0.05, 0, 0.05, 0.1)] * 4
    assert not is_noisy(steady)
    assert is_noisy([1.0, 2.0, 3.0, 4.0] * 3)


def test_the_machine_has_a_name_and_a_load():
    assert processor()
    assert load_average() is None or load_average() >= 0


def test_a_pack_reads_nothing_outside_of_its_folder(tmp_path):
    pack = tmp_path / "pack"
    pack.mkdir()
    (pack / "model.onnx").write_bytes(b"whole")
    assert model_path(pack, "model.onnx") == (pack / "model.onnx").resolve()
    (tmp_path / "other.onnx").write_bytes(b"whole")
    (pack / "link.onnx").symlink_to(tmp_path / "other.onnx")
    for name in ("../other.onnx", str(tmp_path / "other.onnx"), "link.onnx"):
        with pytest.raises(PackError, match="outside of the pack"):
            model_path(pack, name)


def test_a_model_whose_weights_are_elsewhere_is_not_loaded(tmp_path):
    onnx = pytest.importorskip("onnx")
    tensor = onnx.TensorProto(name="w", dims=[1], data_type=1, data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../etc/passwd")
    (tmp_path / "model.onnx").write_bytes(
        onnx.ModelProto(graph=onnx.GraphProto(initializer=[tensor])).SerializeToString()
    )
    with pytest.raises(PackError, match="in another file"):
        model_path(tmp_path, "model.onnx")
