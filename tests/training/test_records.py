"""Files of a run: complete or refused records, metrics without duplicates, the clock."""

import json
import time

import pytest

from lm.core import plain
from lm.core.plugins import UserError
from lm.training import records, run_log, speed
from lm.training.defaults import differences

RUN = {
    "status": "running",
    "config": {"seed": 0, "model": {"width": 32}, "mesh": {"data": 1}},
    "data": {"fingerprint": "f"},
}


def with_record(workdir, record=RUN):
    workdir.mkdir(exist_ok=True)
    (workdir / "run.json").write_text(json.dumps(record))
    return workdir


def test_a_new_workdir_has_no_run(tmp_path):
    assert records.check_same_run(tmp_path / "new", RUN["config"]) is None
    assert records.check_same_run(tmp_path, RUN["config"]) is None
    (tmp_path / "log").write_text("a launcher's")
    (tmp_path / ".run.json.4711").write_text("{")  # left by a run that was killed while writing
    assert records.check_same_run(tmp_path, RUN["config"]) is None


def test_the_same_config_continues_on_any_machine(tmp_path):
    assert records.check_same_run(with_record(tmp_path), RUN["config"]) == RUN
    config = RUN["config"] | {
        "mesh": {"data": 4},
        "training": {"keep": 5, "log_every": 1, "tensorboard": False},
        "data": {"cache": "x"},
    }
    assert records.check_same_run(tmp_path, config) == RUN


def test_another_config_is_refused_with_its_differences(tmp_path):
    with pytest.raises(UserError) as raised:
        records.check_same_run(
            with_record(tmp_path),
            {"seed": 1, "model": {"width": 64, "layers": 2}, "mesh": {"data": 1}},
        )
    assert str(raised.value).splitlines() == [
        f"--workdir={tmp_path} holds a run of another config:",
        "  config.model.layers: None there, 2 now",
        "  config.model.width: 32 there, 64 now",
        "  config.seed: 0 there, 1 now",
        "give another workdir, or the same config to continue",
    ]


def test_a_directory_of_something_else_is_refused(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UserError, match="file is a file; give a directory"):
        records.check_same_run(file, RUN["config"])
    with pytest.raises(
        UserError,
        match="holds something that is no run of lm.train; give an empty or new directory",
    ):
        records.check_same_run(tmp_path, RUN["config"])


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"config": {}, "status": "done"}',
        '{"config": 1, "status": "done", "data": {"fingerprint": 1}}',
    ],
)
def test_a_damaged_record_is_refused(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match=r"run\.json"):
        records.check_same_run(tmp_path, RUN["config"])
    assert (tmp_path / "run.json").read_text() == text


def test_a_missing_record_is_reported(tmp_path):
    with pytest.raises(UserError, match=r"has no run\.json .*; is it the right directory\?"):
        records.read_run(tmp_path)


def test_other_data_are_refused(tmp_path):
    record = RUN | {"data": {"fingerprint": "f", "tokenizer": "t"}}
    records.check_same_data(tmp_path, None, "f", "t")
    records.check_same_data(tmp_path, record, "f", "t")
    with pytest.raises(
        UserError,
        match=r"trained on other data: fingerprint f there, g now"
        r" \(the tokenizer is the same, the text changed\)",
    ):
        records.check_same_data(tmp_path, record, "g", "t")
    with pytest.raises(
        UserError,
        match=r"fingerprint f there, g now \(tokenizer t there, u now\);"
        r" give another workdir, or the same data",
    ):
        records.check_same_data(tmp_path, record, "g", "u")


def test_a_directory_that_cannot_be_created(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made: .*; give another directory"):
        records.make_directory(tmp_path / "file" / "run")


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_a_resumed_run_writes_no_step_twice(tmp_path):
    first = run_log.RunLog(tmp_path, 0, 9, list, quiet=True)
    for step in (2, 4, 6):
        first.write(step, "train", {"loss": float(step)})
    first.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "split": "tr')  # killed while writing
    second = run_log.RunLog(tmp_path, 4, 9, list, quiet=True)
    second.write(6, "train", {"loss": 60.0})
    second.close()
    assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == [
        (2, 2.0),
        (4, 4.0),
        (6, 60.0),
    ]


def test_numbers_that_are_not_finite_are_written_as_text(tmp_path):
    log = run_log.RunLog(tmp_path, 0, 9, list, quiet=True)
    log.write(1, "train", {"loss": float("nan"), "norm": float("inf"), "tokens": 3})
    log.close()
    assert lines(tmp_path) == [
        {"step": 1, "split": "train", "loss": "nan", "norm": "inf", "tokens": 3}
    ]


def test_progress_without_a_terminal_is_a_line(tmp_path, capsys):
    log = run_log.RunLog(tmp_path, 0, 10, list)
    values = {"tokens_per_second": 1234.0, "input_wait_share": 0.015, "mfu": 0.5}
    log.update(1, 6.25, values, 3725.0)
    log.update(2, 6.0, values, 3600.0)  # within ten seconds of the line before
    log.update(10, 5.0, values, float("nan"))
    log.print("done: everything")
    log.close()
    printed = capsys.readouterr().err.splitlines()
    assert (
        printed[0]
        == "step 1/10  loss 6.2500  1,234 tokens/s  MFU 50.0%  input wait 1.5%  1:02:05 left"
    )
    assert printed[1].startswith("step 10/10  loss 5.0000") and printed[1].endswith("? left")
    assert printed[2] == "done: everything" and len(printed) == 3


def test_machine_and_versions():
    machine = records.machine()
    assert (
        machine["platform"] == "cpu"
        and machine["devices"] == 8
        and machine["processes"] == 1
        and machine["memory_gib"] > 0
    )
    assert (
        set(records.PACKAGES) < set(records.versions()) and records.versions()["jax"][0].isdigit()
    )


def test_the_git_revision_is_unknown_outside_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "__file__", str(tmp_path / "records.py"))
    assert records.git_revision() == "unknown"


def test_json_files_are_replaced_atomically(tmp_path):
    path = tmp_path / "a.json"
    plain.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="Circular"):
        circle: dict = {}
        plain.write_json(path, circle | {"circle": circle.setdefault("self", circle)})
    assert plain.read_json(path, "a test") == {"a": 1}
    with pytest.raises(UserError, match="cannot write .*nowhere"):
        plain.write_json(tmp_path / "nowhere" / "a.json", {})
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_the_clock_skips_the_first_step_and_pauses(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    clock = speed.Speed(tokens=10, flops=50.0, peak=1000.0, before=7.0)
    assert clock.values(0.0) == {"tokens_per_second": 0.0, "input_wait_share": 0.0}
    now[0] += 60.0  # compiles
    clock.step_done(waited=5.0)
    for _ in range(4):
        now[0] += 0.5
        clock.step_done(waited=5.5)
    with clock.pause():
        now[0] += 30.0
    assert clock.values(waited=5.5) == {
        "tokens_per_second": 20.0,
        "input_wait_share": 0.25,
        "mfu": 0.1,
    }
    assert clock.seconds() == 7.0 + 60.0 + 2.0 + 30.0
    assert clock.seconds_left(8) == 64.0


def test_options_added_since_have_their_defaults():
    before = {"model.width": 32, "data.path": "books", "objective.rate": 0.15}
    now = {"model.width": 32, "data.path": "books", "data.split": "", "objective.rate": 0.15}
    now |= {"model.new": 3, "data.limit": None}
    assert differences(before, now, {"model.new": 3}) == []
    assert differences(before, now | {"model.new": 4}, {"model.new": 3}) == ["model.new"]
    assert differences(before, now | {"data.limit": 5}, {"model.new": 3}) == ["data.limit"]
    assert differences(before | {"model.width": 64}, now, {"model.new": 3}) == ["model.width"]
