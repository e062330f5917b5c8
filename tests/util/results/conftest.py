"""Records of runs, made up by hand."""

import json
from datetime import UTC, datetime, timedelta

import pytest

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOSTILE = "<script>document.title='broken in'</script>"


def iso(hours_ago):
    return (NOW - timedelta(hours=hours_ago)).replace(tzinfo=None).isoformat()


def write_record(folder, *, config=None, metrics=None, info=None, comment=None, **entry):
    folder.mkdir(parents=True)
    entry = {
        "command": "validate", "status": "COMPLETED", "start_time": iso(3), "heartbeat": iso(1), "stop_time": iso(1),
        "result": None, "experiment": {"name": "frugalseg", "mainfile": "config_ssl_upload.py"},
        "meta": {"options": {"--comment": comment}},
    } | entry  # fmt: skip
    settings = {"method": "alpnet", "dataset": "CHAOST2", "seed": 1, "optim": {"lr": 0.001}} | (config or {})
    for name, content in {"run": entry, "config": settings, "metrics": metrics, "info": info}.items():
        if content is not None:
            (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def exps(tmp_path):
    """Runs of every status, of ours and of the reference's code."""
    return write_exps(tmp_path / "exps")


def write_exps(out):
    """The runs of `exps`; returns their folder."""
    write_record(
        out / "a/runs/1", command="train", result="a/checkpoint.pt", config={"eval_fold": 0}, start_time=iso(9)
    )
    write_record(out / "a/validation/1", result=0.75, config={"eval_fold": 0}, start_time=iso(8))
    (out / "a/validation/1/report.html").write_text("the report")
    write_record(out / "b/validation/2", result=0.25, config={"eval_fold": 1, "num_workers": 7}, start_time=iso(7))
    trace = ["Traceback (most recent call last):\n", "  a line\n", "ValueError: no <b>memory</b>\n"]
    write_record(out / "b/runs/1", command="train", status="FAILED", fail_trace=trace, config={"eval_fold": 1})
    write_record(out / "c/runs/1", command="train", status="RUNNING", stop_time=None, heartbeat=iso(1 / 120))
    write_record(out / "c/runs/2", command="train", status="RUNNING", stop_time=None, heartbeat=iso(2))
    write_record(out / "c/runs/3", command="train", info={"stopped_at_step": 70}, comment=HOSTILE)
    write_record(
        out / "mySSL_train_SABS/4", command="main", status="INTERRUPTED", start_time=iso(30), stop_time=iso(29),
        config={"method": None, "dataset": "SABS_Superpix", "path": {"log_dir": "/x"}}, heartbeat=iso(29),
        experiment={"name": "mySSL", "mainfile": "validation.py"},
        metrics={
            "mar_val_batches_classDice": {"steps": [0], "values": [0.1], "timestamps": [iso(29)]},
            "mar_val_batches_meanDice": {"steps": [0, 1], "values": [0.2, 0.5], "timestamps": [iso(29)] * 2},
            "train_dice_loss": {"steps": [0], "values": [0.9], "timestamps": [iso(29)]},
        },
    )  # fmt: skip
    (out / "mySSL_train_SABS/4/snapshots/9").mkdir(parents=True)
    (out / "mySSL_train_SABS/4/snapshots/9/config.json").write_text("{}")  # part of the run above, no run
    return out
