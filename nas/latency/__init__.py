"""Latency: devices, runtimes, the meter, profiles."""

# fmt: off
from nas.latency.command import measure_source, profile_space
from nas.latency.device import default_batch, device_name, resolve_device, resolve_precision
from nas.latency.device_measure import SHORTEST_S, WARM_UP
from nas.latency.exchange import pack_run, read_results
from nas.latency.front import (
    SHARE_ROUNDS, check_own_targets, check_targets_here, keep_profiles, latency_profiles, measure_front,
    measure_networks, searched_latencies, tighten_latency_bounds, with_kept_profiles,
)
from nas.latency.int8 import CALIBRATION_IMAGES, CALIBRATION_STEP, file_ratio, write_int8
from nas.latency.meter import PATIENCE, REFERENCE_EVERY_S, LatencyMeter, measure_alone
from nas.latency.onnx_file import check_opset, load_onnx, save_onnx, trace, write_onnx
from nas.latency.profile import PROFILE_NAME, LatencyProfile, Predictor, design
from nas.latency.runtimes import describe, own_cores, prepare, random_subnet, torch_threads

__all__ = [
    "CALIBRATION_IMAGES", "CALIBRATION_STEP", "PATIENCE", "PROFILE_NAME", "REFERENCE_EVERY_S",
    "SHARE_ROUNDS", "SHORTEST_S", "WARM_UP", "LatencyMeter", "LatencyProfile", "Predictor", "check_opset",
    "check_own_targets", "check_targets_here", "default_batch", "describe", "design", "device_name",
    "file_ratio", "keep_profiles", "latency_profiles", "load_onnx", "measure_alone", "measure_front",
    "measure_networks", "measure_source", "own_cores", "pack_run", "prepare", "profile_space",
    "random_subnet", "read_results", "resolve_device", "resolve_precision", "save_onnx",
    "searched_latencies", "tighten_latency_bounds", "torch_threads", "trace", "with_kept_profiles",
    "write_int8", "write_onnx",
]
