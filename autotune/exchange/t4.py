"""T4 results, the format that auto-tuners share (github.com/odgaard/TuningSchema)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotune.exchange.recording import Recording, folder_name, trial_of, values_of
from autotune.model.trial import Status
from autotune.store.results import median_ms

_STATUSES = {
    "correct": Status.OK,
    "compile": Status.COMPILE_ERROR,
    "runtime": Status.CRASH,
    "timeout": Status.TIMEOUT,
    "correctness": Status.WRONG_OUTPUT,
    "constraints": Status.INVALID,
}
_WORDS = {status: word for word, status in _STATUSES.items()} | {Status.COMPILE_TIMEOUT: "compile"}
_OTHER = "runtime"


def decode(document: Mapping[str, Any], name: str) -> Recording:
    trials = []
    for order, entry in enumerate(document["results"]):
        measured = {each["name"]: each["value"] for each in entry.get("measurements", ())}
        status = _STATUSES[entry["invalidity"]]
        times = entry["times"]
        trials.append(
            trial_of(
                dict(entry["configuration"]),
                status,
                order,
                measured["time"] if status is Status.OK else str(measured.get("time", entry["invalidity"])),
                times.get("runtimes", ()),
                times.get("compilation", times.get("compilation_time")),
                entry.get("timestamp", ""),
            )
        )
    about = document.get("metadata") or {}
    return Recording(
        folder_name(about.get("kernel", name)),
        folder_name(about.get("workload", "imported")),
        str(about.get("device", "unknown")),
        values_of(trial.config for trial in trials),
        tuple(trials),
    )


def encode(recording: Recording) -> dict[str, Any]:
    results = []
    for trial in recording.trials:
        ok = trial.status is Status.OK
        times = {"runtimes": list(trial.samples_ms), "framework": 0, "search_algorithm": 0, "validation": 0}
        results.append(
            {
                "timestamp": trial.started_at,
                "configuration": dict(trial.config),
                "objectives": ["time"],
                "times": {**times, "compilation": (trial.compile_s or 0) * 1e3},
                "invalidity": _WORDS.get(trial.status, _OTHER),
                "correctness": int(trial.status is not Status.WRONG_OUTPUT),
                "measurements": [{"name": "time", "value": median_ms(trial), "unit": "ms"}] if ok else [],
            }
        )
    about = {"kernel": recording.kernel, "workload": recording.workload, "device": recording.device}
    return {
        "schema_version": "1.0.0",
        "results": results,
        "metadata": {"timeunit": "milliseconds", **about},
    }
