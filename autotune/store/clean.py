"""Clean: remove what killed tuners left, and merge the journals of ended ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from autotune.store import cache, incoming, journal

_MERGED_BYTES = incoming.MAX_BYTES // 4
"""Larger journals stay as they are: merged, they could be longer than what is read."""


def clean(cache_root: Path) -> list[str]:
    """Remove unfinished files and folders, and merge the journals of tuners that have ended.

    A journal is left alone if its writer may still run; on another machine, until the writer has closed it.
    Nothing is removed through a link.
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
        whole = path.is_dir() and not path.is_symlink()
        shutil.rmtree(path, ignore_errors=True) if whole else path.unlink(missing_ok=True)
        done.append(f"removed {path}")
    for index in sorted(cache_root.glob(f"*/{cache.INDEX}")):
        if cache.link_to(index, cache_root):
            continue
        ended = [each for each in journal.read_all(index) if each.abandoned]
        if sum(each.path.stat().st_size for each in ended) > _MERGED_BYTES:
            continue
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
