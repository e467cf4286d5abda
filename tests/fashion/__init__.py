"""Real Fashion-MNIST on real Ray."""
