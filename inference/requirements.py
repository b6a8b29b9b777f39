"""What a model needs of an image is declared, and an image that lacks it is refused in words."""

from dataclasses import dataclass

import numpy as np

from inference.findings import Image, PlanarImage

AXIAL_COSINE = 0.85  # a slice normal within 32 degrees of the patient's axis is still axial


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What a model needs of an image before it looks at a single voxel."""

    modalities: tuple[str, ...]  # CS values of Modality (0008,0060)
    dimensions: int = 3  # 2: planar images, of which the rest is not asked
    axial: bool = False
    min_slices: int = 1
    max_spacing_mm: float | None = None  # the largest distance between neighbouring slices
    min_extent_mm: float = 0.0  # along the slice axis

    def unmet(self, image: Image | PlanarImage) -> str | None:
        """Why this image cannot be analysed, in words; None when it can."""
        if isinstance(image, PlanarImage):
            return self._modality(image.acquisition.modality)
        return next((reason for reason in self._reasons(image) if reason is not None), None)

    def _reasons(self, image: Image) -> tuple[str | None, ...]:
        slices = image.volume.spatial_shape[0]
        between = float(image.volume.spacing[0])
        return (
            self._modality(image.acquisition.modality),
            self._orientation(image),
            f"{slices} slices; at least {self.min_slices} are needed"
            if slices < self.min_slices
            else None,
            f"slices lie {between:.1f} mm apart; at most {self.max_spacing_mm:.1f} mm are allowed"
            if self.max_spacing_mm is not None and between > self.max_spacing_mm
            else None,
            f"the stack covers {slices * between:.0f} mm; {self.min_extent_mm:.0f} mm are needed"
            if slices * between < self.min_extent_mm
            else None,
        )

    def _modality(self, modality: str) -> str | None:
        wanted = " or ".join(self.modalities)
        if modality in self.modalities:
            return None
        return f"not a {wanted} image but {modality or 'of no stated modality'}"

    def _orientation(self, image: Image) -> str | None:
        if not self.axial or slice_axis_cosine(image) >= AXIAL_COSINE:
            return None
        return "the slices are not axial"


def slice_axis_cosine(image: Image) -> float:
    """The absolute cosine between the slices' normal and the patient's head-foot axis."""
    normal = np.asarray(image.volume.affine, dtype=np.float64)[:3, 0]
    return float(abs(normal[2]) / np.linalg.norm(normal))
