"""Mask R-CNN of torchvision: from its weights alone to objects, each with a box and a mask."""
