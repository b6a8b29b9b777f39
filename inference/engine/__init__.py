"""How networks are run: window by window, with memory for one slab, on what the machine has.

`sliding_window` and `labelling` give the labels that MONAI's full computation gives; `resampling`
the grid and values of its Spacing; `device`, `precision` and `residency` decide where, with what
arithmetic, and which models stay loaded.
"""
