#!/bin/sh
# Run one shell string on the host: `inv exec --command` under its original name.
CDPATH='' cd -- "$(dirname -- "$0")/.." || exit 66
PATH="$PWD/.venv/bin:$PATH" exec inv exec --command="$*"
