"""Generate docs/settings.md: python -m remote_tools.settings.reference > docs/settings.md."""

from __future__ import annotations

from pathlib import Path

from remote_tools.settings.layers import dotenv_name
from remote_tools.settings.option_grammar import RSYNC, SSH
from remote_tools.settings.settings import ABOUT, Settings, as_typed

_INTRODUCTION = """
`inv config` shows each setting, its value and its source.

The later place wins: the defaults below; `ns.configure`; `/etc/invoke.yaml` and `~/.invoke.yaml`;
`invoke.yaml` at the root; `.remote_config` at the root, or else in `remote_tools/`; the host's own entry in
`hosts`; the variables `INVOKE_REMOTE_<NAME>`, such as `INVOKE_REMOTE_HOST`; `inv -f FILE`; values that a task
sets; the command's flags, such as `--host`; and for the host, `fab -H`.

- Words and patterns are a list in YAML, or one string, which is split as by a shell.
- Paths on the host may start with `~`; nothing else is expanded.
- `.remote_config` is read, not executed. But `ssh_options` and `rsync_options` are commands: `ProxyCommand`
  runs one here, `--rsync-path` one on the host. So a `.remote_config` that git tracks is refused, and
  `invoke.yaml` is to be trusted as much as `tasks.py`.
- `exclude` adds to the default. `local_dir` is never pushed, whatever `include` says.
- `hosts` holds the settings of one host, such as `trn1: {venv_path: ~/venvs/neuron}`, and groups, such as
  `fleet: [trn1, trn2]`.
"""


def reference() -> str:
    """Return docs/settings.md: every setting, its names and default, and the rejected options."""
    lines = ["# Settings", _INTRODUCTION]
    lines += ["| invoke.yaml `remote:` | `.remote_config` | default | meaning |", "|---|---|---|---|"]
    for name, about in ABOUT.items():
        default = as_typed(getattr(Settings(Path()), name))
        cells = [name, "" if name == "hosts" else dotenv_name(name), default]
        quoted = [f"`{cell}`" if cell else "" for cell in cells]
        lines.append(f"| {' | '.join(quoted)} | {about.help} ({about.kind.name}) |")
    for title, grammar in (("rsync_options", RSYNC), ("ssh_options", SSH)):
        lines += ["", f"## Rejected in `{title}`", ""]
        for reason, options in grammar.refused.items():
            lines.append(f"- {', '.join(f'`{option}`' for option in options)}: {reason}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(reference(), end="")
