"""MONAI bundles run as they are: their own network, preprocessing, inferer and postprocessing.

`configuration` reads and edits the configuration as a plain tree, `policy` says what it may name,
`recipe` builds its four parts, `grids` takes an image in and a result back to the image's exact
grid, `answers` turns results into findings, `proposal` writes what a sidecar begins with.
"""
