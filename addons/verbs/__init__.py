"""The verbs of the `governor` command, one file a family."""
