"""Blood vessels with contrast agent in a CT, found without training."""
