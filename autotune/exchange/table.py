"""CSV: a column for each parameter, then status, time_ms, compile_s, message."""

from __future__ import annotations

import csv
import io
import json

from autotune.exchange.recording import Recording, folder_name, trial_of, values_of
from autotune.model.space import Value
from autotune.model.trial import Status
from autotune.store.results import median_ms

_COLUMNS = ("status", "time_ms", "compile_s", "message")


def decode(text: str, name: str) -> Recording:
    rows = csv.reader(io.StringIO(text))
    header = next(rows, [])
    if tuple(header[-len(_COLUMNS) :]) != _COLUMNS:
        raise ValueError(f"the last columns must be {', '.join(_COLUMNS)}")
    names, trials = header[: -len(_COLUMNS)], []
    for order, row in enumerate(rows):
        *values, status, time, compile_s, message = row
        config = dict(zip(names, map(_value, values), strict=True))
        outcome = float(time) if time else message
        compile_ms = float(compile_s) * 1e3 if compile_s else None
        trials.append(trial_of(config, Status(status), order, outcome, (), compile_ms, ""))
    return Recording(
        folder_name(name), "imported", "unknown", values_of(trial.config for trial in trials), tuple(trials)
    )


def encode(recording: Recording) -> str:
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow([*recording.parameters, *_COLUMNS])
    for trial in recording.trials:
        time = median_ms(trial) if trial.status is Status.OK else ""
        values = [_cell(trial.config[name]) for name in recording.parameters]
        compile_s = "" if trial.compile_s is None else trial.compile_s
        rows.writerow([*values, trial.status.value, time, compile_s, trial.message])
    return table.getvalue()


def _cell(value: Value) -> str:
    """Write a value so that `_value` can read it: text that looks like a number is quoted, as in JSON."""
    return value if isinstance(value, str) and _value(value) == value else json.dumps(value)


def _value(cell: str) -> Value:
    try:
        value = json.loads(cell)
    except ValueError:
        return cell
    return value if isinstance(value, bool | int | float | str) else cell
