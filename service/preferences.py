"""Preferences between series of one study, each a pure measure with its words."""

PREFERENCES: tuple[str, ...] = (
    "original",
    "thin_slices",
    "thick_slices",
    "soft_kernel",
    "sharp_kernel",
    "most_instances",
    "contrast",
    "no_contrast",
)

DEFAULT: tuple[str, ...] = ("original", "thin_slices", "soft_kernel", "most_instances")
