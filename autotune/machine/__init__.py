"""What machine this is, and what it can do at best."""
