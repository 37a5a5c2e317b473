"""Ways to get round the enforcement from inside a sandbox, taken one after the other."""
