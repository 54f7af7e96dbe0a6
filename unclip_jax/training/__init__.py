"""The one training loop and what it needs: state, step, optimiser, checkpoints, metrics."""
