"""Governor's kernel: values in, values out. No clock, file, network, thread, logging or mitmproxy."""
