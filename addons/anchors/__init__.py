"""Places out of this host's reach that keep heads of the log."""
