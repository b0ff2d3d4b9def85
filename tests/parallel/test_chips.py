"""The table of accelerators agrees with JAX's own."""

import pytest

from lm.parallel import chips

# Where the vendor's pages and JAX differ, the table has the numbers of the pages: v5p 2.77 TB/s
# (JAX 2.46), v3 123 TFLOP/s and 0.9 TB/s (140, 0.83), v2 45 and 0.7 (46, 0.72).
DIFFERENT = {
    ("v5p", "bandwidth"),
    ("v3", "peak"),
    ("v3", "bandwidth"),
    ("v2", "peak"),
    ("v2", "bandwidth"),
}


@pytest.mark.parametrize("name", chips.TPUS)
def test_table_agrees_with_jax(name):
    tpu_info = pytest.importorskip("jax._src.pallas.mosaic.tpu_info")
    version = tpu_info.ChipVersion("7x" if name == "tpu7x" else name)
    cores = 2 if version.supports_megacore else 1
    info = tpu_info.get_tpu_info_for_chip(version, cores)
    chip = chips.TPUS[name]
    per_chip = version.num_physical_tensor_cores_per_chip
    ours = {
        "peak": chip.tflops * 1e12,
        "bandwidth": chip.bandwidth * 1e12,
        "hbm": chip.hbm * 2**30,
    }
    theirs = {
        "peak": info.bf16_ops_per_second,
        "bandwidth": info.mem_bw_bytes_per_second,
        "hbm": info.hbm_capacity_bytes,
    }
    for what, value in ours.items():
        if (name, what) not in DIFFERENT:
            assert value == pytest.approx(
                theirs[what] * per_chip, rel=0.01 if what != "hbm" else 0.08
            ), what
    assert chip.devices == per_chip // cores


def test_usable_memory_is_close_to_that_of_the_chip():
    for name, chip in chips.TPUS.items():
        assert 0.9 * chip.hbm / chip.devices < chip.usable <= 1.01 * chip.hbm / chip.devices, name


@pytest.mark.parametrize(
    ("kind", "tflops"),
    [
        ("TPU v5 lite", 197),
        ("TPU v5", 459),
        ("TPU v5p", 459),
        ("TPU v6 lite", 918),
        ("TPU v3", 61.5),
        ("TPU7x", 1153.5),
        ("NVIDIA H200", 989),
    ],
)
def test_peaks_are_of_one_device(kind, tflops):
    assert chips.peak_flops(kind) == tflops * 1e12


def test_unknown_device_has_no_peak():
    assert chips.peak_flops("cpu") is None


def test_clocks_follow_from_peaks():
    # v5e: 4 units of 128 × 128, 1.5 GHz; v6e: 4 of 256 × 256 at 1.75 GHz.
    assert chips.TPUS["v5e"].clock == pytest.approx(1.503e9, rel=1e-3)
    assert chips.TPUS["v6e"].clock == pytest.approx(1.751e9, rel=1e-3)


def test_compiler_options_are_those_of_the_generation():
    assert (
        chips.compiler_options("TPU v5p")
        == chips.compiler_options("TPU v5")
        == chips.COMPILER_OPTIONS["v5p"]
    )
    assert (
        chips.compiler_options("TPU v5 lite")
        == chips.COMPILER_OPTIONS["v5e"]
        != chips.COMPILER_OPTIONS["v5p"]
    )
    assert chips.compiler_options("cpu") is None  # a jit without options
