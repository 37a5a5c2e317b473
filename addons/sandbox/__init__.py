"""Where a command runs whose only way out is Governor."""
