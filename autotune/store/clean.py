"""Clean: remove what killed tuners left, and merge the journals of ended ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from autotune.store import cache, journal


def clean(cache_root: Path) -> list[str]:
    """Remove unfinished files and folders, and merge the journals of tuners that have ended.

    A journal is left alone if its writer may still run; on another machine, until the writer has closed it.
    The merged journal is on the disk before the others are removed. If `clean` is killed in between, records
    exist twice, which does no harm.

    Returns:
        One line for each action.

    Raises:
        CacheError: the cache cannot be read or written.
        DataError: a journal is corrupt.
    """
    done = []
    for path in cache.unfinished(cache_root):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        done.append(f"removed {path}")
    for index in sorted(cache_root.glob(f"*/{cache.INDEX}")):
        ended = [each for each in journal.read_all(index) if each.abandoned]
        if len(ended) > 1 or any(each.torn for each in ended):
            done.append(_merge(ended))
    return done


def _merge(ended: list[journal.Journal]) -> str:
    header = {"schema": journal.SCHEMA, "writer": ended[-1].writer, "order": ended[-1].order}
    records = [record for each in ended for record in each.records]
    lines = [json.dumps(each, separators=(",", ":")) for each in (header, *records, {"record": "end"})]
    # Its name sorts like the last of them, so that records of later journals still replace its own.
    merged = ended[-1].path.with_name(f"{ended[-1].path.name.split('.')[0]}.merged{journal.SUFFIX}")
    cache.write_file(merged, b"".join(map(journal.encode, lines)))
    for each in ended:
        if each.path != merged:
            each.path.unlink()
    return f"merged {len(ended)} journals of {len(records)} records into {merged}"
