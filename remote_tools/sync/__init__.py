"""Push the workspace and pull files: plans, rsync, progress."""
