"""Run `inv dev` under its original name, `python remote_tools/dev_run.py`."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Exec `inv dev` in the project's root, with the Python of .venv if it exists."""
    dashes = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    parser = ArgumentParser(
        prog="dev_run.py",
        usage="python remote_tools/dev_run.py [--auto-fetch] [--local-dir DIR] -- TARGET [ARGS...]",
        description="Push the workspace and run TARGET on the host.",
    )
    parser.add_argument(
        "--auto-fetch", action="store_true", help="fetch the files that the run wrote to the cache"
    )
    parser.add_argument("--local-dir", type=os.path.abspath, help="the folder for fetched files")
    options, unknown = parser.parse_known_args(sys.argv[1:dashes])
    if unknown:
        parser.print_usage(sys.stderr)
        parser.exit(
            os.EX_USAGE,
            f"dev_run.py: unexpected {unknown[0]!r} before --; TARGET comes after --\n",
        )
    flags = ["--auto-fetch"] * options.auto_fetch
    flags += [f"--local-dir={options.local_dir}"] if options.local_dir else []
    venv = ROOT / ".venv" / "bin" / "python"
    python = str(venv) if venv.exists() else sys.executable
    os.chdir(ROOT)
    os.execv(python, [python, "-m", "invoke", "dev", *flags, "--", *sys.argv[dashes + 1 :]])


if __name__ == "__main__":
    main()
