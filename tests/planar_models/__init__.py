"""Models of planar images as module files that `inference.models` could have, for tests."""
