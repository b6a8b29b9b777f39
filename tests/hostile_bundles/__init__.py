"""Bundles, TorchScript, pickles and Python that try what no model may do."""
