"""Ways to call a server: a pipeline in this process, one behind a URL, a simulated one."""
