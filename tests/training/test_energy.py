"""Energy from fake counters, against values computed by hand."""

import os

import pytest

from lm.training import energy


def zone(root, name, label, value, most=1_000_000):
    path = root / name
    path.mkdir(parents=True, exist_ok=True)
    for file, content in (("name", label), ("energy_uj", value), ("max_energy_range_uj", most)):
        (path / file).write_text(f"{content}\n")
    return path


def test_packages_are_counted_once_with_wraparound_by_fraction_of_busy_time(tmp_path):
    tick = os.sysconf("SC_CLK_TCK")
    first, second = (
        zone(tmp_path, "intel-rapl:0", "package-0", 900_000),
        zone(tmp_path, "intel-rapl:1", "package-1", 100),
    )
    zone(tmp_path, "intel-rapl:0:0", "core", 5), zone(tmp_path, "intel-rapl:2", "psys", 7)
    stat, process = tmp_path / "stat", [0.0]
    stat.write_text(f"cpu {10 * tick} 0 0 {500 * tick} 0 0 0 0 0 0\ncpu0 1 2 3\n")
    counters = energy.Rapl(tmp_path, stat, lambda: process[0])
    assert counters.available and len(counters.last) == 2
    (first / "energy_uj").write_text("200000")  # wrapped: 300,000 µJ
    (second / "energy_uj").write_text("700100")  # 700,000 µJ
    stat.write_text(f"cpu {14 * tick} 0 0 {900 * tick} 70 0 0 0 0 0\n")
    process[0] = 1.0  # a quarter of the four busy seconds
    assert counters.joules() == pytest.approx(0.25)
    assert counters.joules() == 0.0


def test_power_draw_is_integrated():
    now, watts = [0.0], [[100.0, 50.0]]
    source = energy.Nvidia(lambda: watts[0], lambda: now[0], every=10.0)
    assert source.available
    now[0] = 9.0
    assert source.joules() == 0.0
    now[0], watts[0] = 20.0, [200.0, 50.0]
    assert source.joules() == pytest.approx((150 + 250) / 2 * 20)
    now[0] = 21.0
    assert source.joules(last=True) == pytest.approx(250.0)


def test_a_resumed_run_adds_to_its_count_and_records_nothing_without_counters(tmp_path):
    assert energy.EnergyMeter(5.0, [energy.Rapl(tmp_path / "none")]).values() == {}
    now = [0.0]
    meter = energy.EnergyMeter(5.0, [energy.Nvidia(lambda: [10.0], lambda: now[0])])
    now[0] = 20.0
    assert meter.values() == {
        "energy_joules": 205.0,
        "energy_source": "nvidia-smi, power draw of all GPUs",
    }


def test_workers_on_one_gpu_divide_its_power(monkeypatch):
    monkeypatch.setattr(energy.shutil, "which", lambda _: "nvidia-smi")
    monkeypatch.setattr(energy, "_draw", lambda: [300.0])
    now = [0.0]
    source = energy.Nvidia(lambda: [300.0], lambda: now[0], sharing=3)
    now[0] = 20.0
    assert source.joules() == pytest.approx(300 * 20 / 3) and source.source.endswith(
        "divided by 3 workers side by side"
    )
    monkeypatch.setenv(energy.SIDE_BY_SIDE, "4")
    assert energy.EnergyMeter().sources[-1].sharing == 4
    monkeypatch.delenv(energy.SIDE_BY_SIDE)
    assert energy.EnergyMeter().sources[-1].sharing == 1
