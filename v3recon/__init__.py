"""Single-photo 3D face reconstruction guided by the segmentation of facial parts."""

__version__ = "0.1.0"
