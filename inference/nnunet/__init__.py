"""Models trained with nnU-Net v2 run here as they do in its own package, without that package.

The method: Isensee et al., Nature Methods 2021;18:203-211. `plans` and `labels` read what a folder
says, `folder` finds its parts, `architectures` builds networks, `preprocessing`, `sliding_window`
and `restoration` are the path of an image, `prediction` is that path in one call.
"""
