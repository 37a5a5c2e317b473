"""What is wrong with this machine's Governor, and what to do about it."""
