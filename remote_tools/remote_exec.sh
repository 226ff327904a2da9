#!/bin/sh
# Run one shell string on the host: `inv exec --command` under its original name.
[ $# -gt 0 ] || { echo "usage: remote_exec.sh 'STRING'" >&2; exit 64; }
CDPATH='' cd -- "$(dirname -- "$0")/.." || exit 66
PATH="$PWD/.venv/bin:$PATH" exec inv exec --command="$*"
