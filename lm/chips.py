"""Peak dense bfloat16 speed per JAX device, for model FLOPs utilisation (MFU).

Sources: the Cloud TPU system-architecture pages and NVIDIA's data sheets (dense, without sparsity). A device that is
not listed, a CPU for example, has no known peak and so no MFU is printed for it.
"""

# Longest name first: "TPU v5" must not catch "TPU v5 lite".
_PEAK_TFLOPS = (
    ("TPU v2", 22.5),  # 45 a chip, two devices
    ("TPU v3", 61.5),  # 123 a chip, two devices
    ("TPU v4", 275.0),
    ("TPU v5 lite", 197.0),
    ("TPU v5e", 197.0),
    ("TPU v5p", 459.0),
    ("TPU v5", 459.0),
    ("TPU v6 lite", 918.0),
    ("TPU v6e", 918.0),
    ("TPU7x", 1153.5),  # 2307 a chip, two devices
    ("NVIDIA A100", 312.0),
    ("NVIDIA H100", 989.0),
    ("NVIDIA H200", 989.0),
    ("NVIDIA B200", 2250.0),
)


def peak_flops(device_kind: str) -> float | None:
    """Peak bfloat16 FLOP/s of one JAX device of this kind, or None where unknown."""
    matches = [(len(prefix), tflops) for prefix, tflops in _PEAK_TFLOPS if device_kind.startswith(prefix)]
    return max(matches)[1] * 1e12 if matches else None
