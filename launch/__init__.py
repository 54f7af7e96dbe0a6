"""Starting runs; free of jax."""
