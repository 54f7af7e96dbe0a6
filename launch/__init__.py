"""Starting runs; free of jax, so that it works where no accelerator stack is installed."""
