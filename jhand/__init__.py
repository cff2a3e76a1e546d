"""jhand: functional models of human hands in JAX."""
