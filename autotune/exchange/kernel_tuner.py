"""kernel_tuner's cache files (github.com/KernelTuner/kernel_tuner)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotune.exchange.recording import Recording, folder_name, trial_of, values_of
from autotune.model.trial import Status
from autotune.store.results import median_ms

_STATUSES = {
    "CompilationFailedConfig": Status.COMPILE_ERROR,
    "RuntimeFailedConfig": Status.CRASH,
    "InvalidConfig": Status.INVALID,
}
_NAMES = {status: name for name, status in _STATUSES.items()} | {
    Status.COMPILE_TIMEOUT: "CompilationFailedConfig"
}
_OTHER = "RuntimeFailedConfig"
_FAILED_MS = 1e20  # the time that early versions recorded for a failed config


def decode(document: Mapping[str, Any]) -> Recording:
    names = document["tune_params_keys"]
    given = document.get("tune_params") or {}
    trials = []
    for order, entry in enumerate(document["cache"].values()):
        time = entry.get("time", entry.get("__error__"))
        failed = str(time) if not isinstance(time, int | float) else "failed" if time >= _FAILED_MS else ""
        trials.append(
            trial_of(
                {name: entry[name] for name in names},
                _STATUSES.get(failed, Status.ERROR) if failed else Status.OK,
                order,
                failed or time,
                entry.get("times", ()),
                entry.get("compile_time"),
                entry.get("timestamp", ""),
            )
        )
    size = document.get("problem_size", "")
    workload = "x".join(map(str, size)) if isinstance(size, list) else str(size)
    parameters = values_of(trial.config for trial in trials)
    parameters.update({name: given[name] for name in names if name in given})
    device = str(document.get("device_name", "unknown"))
    return Recording(
        folder_name(document["kernel_name"]),
        folder_name(f"{workload},{device}"),
        device,
        parameters,
        tuple(trials),
    )


def encode(recording: Recording) -> dict[str, Any]:
    names = list(recording.parameters)
    entries = {}
    for trial in recording.trials:
        compile_ms = None if trial.compile_s is None else trial.compile_s * 1e3
        entries[",".join(str(trial.config[name]) for name in names)] = {
            **{name: trial.config[name] for name in names},
            "time": median_ms(trial) if trial.status is Status.OK else _NAMES.get(trial.status, _OTHER),
            "times": list(trial.samples_ms),
            "compile_time": compile_ms or 0,
            "verification_time": 0,
            "benchmark_time": sum(trial.samples_ms),
            "strategy_time": 0,
            "framework_time": 0,
            "timestamp": trial.started_at,
        }
    return {
        "device_name": recording.device,
        "kernel_name": recording.kernel,
        "problem_size": recording.workload,
        "tune_params_keys": names,
        "tune_params": {name: list(values) for name, values in recording.parameters.items()},
        "objective": "time",
        "cache": entries,
    }
