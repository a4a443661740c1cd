"""cliffs: exploding and vanishing gradients in JAX. See them, measure them exactly, tame them."""

__version__ = "0.1.0"
