"""`governor serve --workers N`: one supervisor, N workers, one of everything that there is once."""
