"""Peak rates of accelerators: one table for the MFU of training runs and the rooflines of `tpu/`.

Sources: the Cloud TPU pages of each version (peak, HBM, ICI), compared with
jax.experimental.pallas.tpu in tests/parallel/test_chips.py; NVIDIA's data sheets (dense, without
sparsity). An unlisted device, such as a CPU, has no known peak, so its MFU is not printed.
"""

import dataclasses

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One TPU chip.

    Attributes:
      kinds: prefixes of the `device_kind` that JAX reports for the chip's devices.
      devices: number of JAX devices per chip.
      tflops: peak dense bfloat16 rate of the chip, TFLOP/s.
      hbm: memory of the chip (HBM), GiB.
      usable: HBM available to a program on one device, GiB, as the compiler reports for a program
        that does not fit.
      bandwidth: HBM bandwidth of the chip, TB/s.
      link: bandwidth of one ICI link in one direction, GB/s.
      links: number of ICI links of the chip.
      dcn: the chip's share of its host's network bandwidth in one direction, GB/s: for v5e and v6e
        the bandwidth of a pod divided by the number of its chips; for other chips an assumption.
      mxus: number of matrix units (MXUs) of the chip.
      mxu: width of an MXU, in cells.
    """

    kinds: tuple[str, ...]
    devices: int
    tflops: float
    hbm: float
    usable: float
    bandwidth: float
    link: float
    links: int
    dcn: float
    mxus: int
    mxu: int

    @property
    def peak(self) -> float:
        """Peak bfloat16 FLOP/s of one JAX device."""
        return self.tflops * 1e12 / self.devices

    @property
    def clock(self) -> float:
        """Clock in Hz, derived from the peak: each MXU cell multiplies and adds once per cycle."""
        return self.tflops * 1e12 / (self.mxus * 2 * self.mxu**2)


TPUS = {
    "v2": Chip(("TPU v2",), 2, 45.0, 16, 7.48, 0.7, 62.0, 4, 3.125, 2, 128),
    "v3": Chip(("TPU v3",), 2, 123.0, 32, 15.48, 0.9, 82.0, 4, 3.125, 4, 128),
    "v4": Chip(("TPU v4",), 1, 275.0, 32, 30.75, 1.23, 45.0, 6, 6.25, 8, 128),
    "v5e": Chip(("TPU v5 lite", "TPU v5e"), 1, 197.0, 16, 15.75, 0.82, 50.0, 4, 3.125, 4, 128),
    "v5p": Chip(("TPU v5", "TPU v5p"), 1, 459.0, 95, 95.74, 2.77, 100.0, 6, 6.25, 8, 128),
    "v6e": Chip(("TPU v6 lite", "TPU v6e"), 1, 918.0, 32, 31.25, 1.64, 100.0, 4, 12.5, 4, 256),
    "tpu7x": Chip(("TPU7x",), 2, 2307.0, 192, 94.75, 7.38, 100.0, 6, 12.5, 8, 256),
}
# XLA options for each TPU generation, set whenever a train step is compiled. The list is short on
# purpose: each option has a measured reason, and some others (SparseCore offloads) gave wrong
# losses.
_ALL = {
    "xla_tpu_enable_latency_hiding_scheduler": "true",
    # Disables windowed einsum, which replaces one gather and one matmul by a loop of partial
    # matmuls: a 1B step then takes 1.6 (v5p) to 2.3 (v5e) times the cycles.
    "xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000",
}
COMPILER_OPTIONS: dict[str, dict[str, str]] = {
    "v2": _ALL,
    "v3": _ALL,
    "v4": {
        **_ALL,
        "xla_enable_async_all_gather": "true",
        "xla_enable_async_collective_permute": "true",
    },
    "v5e": _ALL,
    "v5p": {
        **_ALL,
        "xla_enable_async_all_gather": "true",
        "xla_enable_async_collective_permute": "true",
    },
    "v6e": _ALL,
    "tpu7x": _ALL,
}
_NVIDIA_TFLOPS = {
    "NVIDIA A100": 312.0,
    "NVIDIA H100": 989.0,
    "NVIDIA H200": 989.0,
    "NVIDIA B200": 2250.0,
}
_PEAKS = {kind: chip.peak for chip in TPUS.values() for kind in chip.kinds} | {
    kind: 1e12 * tflops for kind, tflops in _NVIDIA_TFLOPS.items()
}


def peak_flops(device_kind: str) -> float | None:
    """Returns the peak bfloat16 FLOP/s of one JAX device, or None for an unknown device.

    Args:
      device_kind: kind of the device, as in `jax.Device.device_kind`.
    """
    # Take the longest prefix that matches: "TPU v5" must not catch "TPU v5 lite".
    matches = [(len(kind), peak) for kind, peak in _PEAKS.items() if device_kind.startswith(kind)]
    return max(matches)[1] if matches else None


def compiler_options(device_kind: str) -> dict[str, str] | None:
    """Returns the XLA options of a train step on JAX devices of this kind; None if there are none.

    Args:
      device_kind: kind of the device, as in `jax.Device.device_kind`.
    """
    matches = [
        (len(kind), name)
        for name, chip in TPUS.items()
        for kind in chip.kinds
        if device_kind.startswith(kind)
    ]
    return COMPILER_OPTIONS[max(matches)[1]] if matches else None
