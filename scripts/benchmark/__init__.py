"""`scripts/bench`: Governor against bare mitmdump, interleaved in one run, with an identical control."""
