"""The tasks, in a module for each namespace; `namespace` composes them."""
