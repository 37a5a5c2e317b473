"""Governor's adapters: everything that touches the world. Each file is one adapter; the kernel decides."""
