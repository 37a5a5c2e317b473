"""What a policy means for every request at once: an exact engine, and the findings and comparisons built on it."""
