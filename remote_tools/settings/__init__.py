"""The settings: the places that may hold one, and their precedence."""
