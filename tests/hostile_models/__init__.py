"""Models that misbehave, each in one way, as module files that `inference.models` could have."""
