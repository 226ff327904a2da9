#!/bin/sh
# Push the workspace: `inv sync` under its original name.
CDPATH='' cd -- "$(dirname -- "$0")/.." || exit 66
PATH="$PWD/.venv/bin:$PATH" exec inv sync "$@"
