"""A model that is a bare function of arrays answers on the exact grid of the image it was given.

`options`: what a sidecar's `[options]` may say, checked; `placement`: from the image's grid to the
function's and back; `intensity`: from the image's values to the function's; `windows`: one call or
a sliding window; `segmentation`, `keypoints`, `answers`: from what it returns to findings; `model`:
all of it, one after the other; `returned`: what a Python function may return.
"""
