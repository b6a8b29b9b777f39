"""Models that misbehave, each in one way: modules of this package as `inference.models` has them."""
