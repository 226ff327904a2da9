"""For shapes that were never tuned, the cache of those that were is asked, and the answer says how."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from autotune import Inputs, Kernel, SearchSpace, TensorSpec
from autotune.backends.c import CBackend
from autotune.model.errors import DataError
from autotune.model.kernel import Specs
from autotune.model.space import Config, Value
from autotune.model.statistics import metrics
from autotune.model.timing import Timing
from autotune.model.trial import Status, Trial
from autotune.model.workload import config_label, workload, workload_label
from autotune.store import cache, summary
from autotune.store.summary import Search, Summary, Work
from autotune.tuner import decides
from autotune.tuning.predict import Choice, best_config


def space(specs: Specs) -> SearchSpace:
    """Blocks may not be larger than the tensor."""
    extent = specs[0].shape[0]

    def fits(config: Config) -> bool:
        return int(config["block"]) <= extent

    return SearchSpace({"block": [16, 32, 64, 128, 256], "order": ["MN", "NM"]}, (fits,))


def golden(x: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    return (x,)


KERNEL = Kernel(
    name="copy",
    entry="copy",
    generators={"c": lambda _config, _inputs, _outputs: ""},
    outputs=lambda specs: specs,
    golden=golden,
    flops=lambda _specs: 0,
    bytes_moved=lambda _specs: 1,
    space=space,
)


def inputs(extent: int, dtype: str = "float32") -> Inputs:
    return Inputs((TensorSpec("x", (extent, 64), dtype),))


def milliseconds(extent: int, config: Config) -> float:
    """Blocks of a quarter of the extent are best, and the order MN."""
    apart = abs(np.log2(int(config["block"]) * 4 / extent))
    return float(extent * (1 + 0.2 * apart + 0.1 * (config["order"] == "NM")))


def tuned(root: Path, extent: int, dtype: str = "float32") -> None:
    """Write what tuning one extent would have left."""
    specs = inputs(extent, dtype).specs
    work = workload(KERNEL, inputs(extent, dtype), "c", decides(CBackend(), Timing()))
    trials = []
    for order, config in enumerate(space(specs)):
        reading = metrics([milliseconds(extent, config)], 0, 1)
        identity = work.identity(config, work.source(config))
        trials.append(Trial(config, Status.OK, identity, config_label(config), order, "", reading))
    trials.sort(key=lambda trial: milliseconds(extent, trial.config))
    failed: dict[str, Value] = {"block": 16, "order": "failed"}
    trials.append(Trial(failed, Status.CRASH, "", config_label(failed), len(trials), "it crashed"))
    folder = root / KERNEL.name / workload_label(specs)
    folder.mkdir(parents=True)
    written = Summary(
        folder=folder,
        kernel=KERNEL.name,
        shapes=folder.name,
        backend="c",
        inputs=specs,
        outputs=(),
        work=Work(0, 0),
        environment={},
        roofline=None,
        timing={},
        search=Search("exhaustive", 0, len(trials)),
        baselines=(),
        best_path=trials[0].path,
        tie_paths=(),
        trials=tuple(trials),
        contexts={"c": work.context},
    )
    summary.write(written)


def test_shapes_that_were_tuned_get_their_own_best(tmp_path: Path) -> None:
    tuned(tmp_path, 256)
    expected = Choice({"block": 64, "order": "MN"}, "exact", ("256x64",), "c")
    assert expected == best_config(KERNEL, inputs(256), tmp_path)


def test_shapes_close_to_tuned_ones_get_the_best_of_the_nearest(tmp_path: Path) -> None:
    for extent in (128, 256, 512):
        tuned(tmp_path, extent)
    expected = Choice({"block": 128, "order": "MN"}, "nearest", ("512x64",), "c")
    assert expected == best_config(KERNEL, inputs(500), tmp_path)


def test_shapes_between_tuned_ones_get_what_a_model_of_all_of_them_chooses(tmp_path: Path) -> None:
    for extent in (64, 128, 512, 1024):
        tuned(tmp_path, extent)
    chosen = best_config(KERNEL, inputs(256), tmp_path)
    assert chosen is not None
    assert ("model", {"128x64", "512x64", "64x64", "1024x64"}) == (chosen.origin, {*chosen.shapes})
    best = milliseconds(256, {"block": 64, "order": "MN"})
    assert milliseconds(256, chosen.config) <= 1.2 * best


def test_a_best_that_is_not_valid_here_is_passed_over(tmp_path: Path) -> None:
    tuned(tmp_path, 64)
    chosen = best_config(KERNEL, inputs(15), tmp_path)
    assert chosen is None
    small = best_config(KERNEL, inputs(16), tmp_path)
    assert small == Choice({"block": 16, "order": "MN"}, "model", ("64x64",), "c")


@pytest.mark.parametrize(
    "other",
    [
        inputs(256, "float64"),
        Inputs((TensorSpec("x", (256, 64), strides=(1, 256)),)),
        Inputs((TensorSpec("x", (256,)),)),
        Inputs((TensorSpec("x", (256, 64)), TensorSpec("y", (256, 64)))),
    ],
)
def test_other_dtypes_layouts_and_ranks_tell_nothing(tmp_path: Path, other: Inputs) -> None:
    tuned(tmp_path, 256)
    assert None is best_config(KERNEL, other, tmp_path)


def test_an_empty_cache_tells_nothing(tmp_path: Path) -> None:
    assert None is best_config(KERNEL, inputs(256), tmp_path)


def test_a_summary_that_is_damaged_is_named(tmp_path: Path) -> None:
    tuned(tmp_path, 128)
    path = tmp_path / "copy" / "128x64" / cache.METRICS
    path.write_text(path.read_text()[:-9])
    with pytest.raises(DataError, match=r"copy/128x64/perf_metrics\.json: not JSON"):
        best_config(KERNEL, inputs(256), tmp_path)


def test_only_configs_of_the_backend_that_is_asked_for_are_chosen(tmp_path: Path) -> None:
    tuned(tmp_path, 256)
    (path,) = tmp_path.glob(f"*/*/{cache.METRICS}")
    document = json.loads(path.read_text())
    theirs = document["trials"][1]
    theirs["path"] = document["best"] = f"backend=numpy,{theirs['path']}"
    path.write_text(json.dumps(document))
    ours = best_config(KERNEL, inputs(256), tmp_path)
    assert Choice({"block": 64, "order": "MN"}, "exact", ("256x64",), "c") == ours
    other = best_config(KERNEL, inputs(256), tmp_path, backend="numpy")
    unknown = ("context: not recorded",)
    assert Choice(theirs["config"], "nearest", ("256x64",), "numpy", unknown) == other
    assert None is best_config(KERNEL, inputs(256), tmp_path, backend="another")
