"""Numbers of a segment with their coded meaning: volume, mean density, LAA-950, Perc15.

Densities are in HU over all voxels of the segment. LAA-950 is the share of voxels below -950 HU
(Gevenois et al., Am J Respir Crit Care Med 1996;154:187-192), Perc15 the 15th percentile of the
histogram (Dirksen et al., Am J Respir Crit Care Med 1999;160:1468-1472). `label` names the segment
that a number belongs to; None means the whole image.
"""

import numpy as np
from numpy.typing import NDArray
from pydicom.sr.codedict import codes

from inference import regions
from inference.coding import ATTENUATION_PERCENTILE_15, LOW_ATTENUATION_AREA_950
from inference.findings import Image, Measurement, Segment

LOW_ATTENUATION_HU = -950
PERCENTILE = 15

Values = NDArray[np.float32]


def densities(segment: Segment, image: Image) -> Values:
    """The values of all voxels of the segment, one dimension, in the image's order."""
    region = regions.on_grid(segment.mask, image.volume)
    values: Values = image.volume.array[region.box][region.mask].astype(np.float32)
    return values


def volume(segment: Segment) -> Measurement:
    """Voxel count times voxel volume, cm3 (CID 7462)."""
    count = int(np.count_nonzero(segment.mask.array))
    return Measurement(
        name=codes.SCT.Volume,
        value=count * float(segment.mask.voxel_volume) / 1000.0,
        unit=codes.UCUM.CubicCentimeter,
        segment=segment.definition.label,
    )


def mean_density(values: Values, label: str | None) -> Measurement:
    """Mean attenuation, HU."""
    return Measurement(
        name=codes.DCM.AttenuationCoefficient,
        value=float(values.mean(dtype=np.float64)),
        unit=codes.UCUM.HounsfieldUnit,
        derivation=codes.SCT.Mean,
        segment=label,
    )


def laa950(values: Values, label: str | None) -> Measurement:
    """Share of the voxels below -950 HU, percent."""
    return Measurement(
        name=LOW_ATTENUATION_AREA_950,
        value=100.0 * int(np.count_nonzero(values < LOW_ATTENUATION_HU)) / values.size,
        unit=codes.UCUM.Percent,
        segment=label,
    )


def perc15(values: Values, label: str | None) -> Measurement:
    """The attenuation below which 15 % of the voxels lie, HU."""
    return Measurement(
        name=ATTENUATION_PERCENTILE_15,
        value=float(np.percentile(values, PERCENTILE)),
        unit=codes.UCUM.HounsfieldUnit,
        segment=label,
    )
