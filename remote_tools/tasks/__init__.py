"""The tasks, a module for each namespace; `collection` composes them."""
