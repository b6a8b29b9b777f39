"""Every coded concept that our results use, once, with the meaning its dictionary gives it.

Sources: PS3.16 Annex D (DCM), SNOMED CT concepts of the DICOM subset (PS3.16 8.1.1), UCUM (PS3.16 CID 7181).
"""

from pydicom.sr.coding import Code

ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
"""Algorithm family (PS3.16 CID 7162)."""

LOW_ATTENUATION_AREA_950 = Code("LAA950", "99HOUNSFIELD", "Low attenuation area below -950 HU")
"""Ours: share of lung voxels below -950 HU; DICOM's dictionaries have none."""

ATTENUATION_PERCENTILE_15 = Code("PERC15", "99HOUNSFIELD", "15th percentile of attenuation")
"""Ours: CID 7468 has only the 10th and 90th percentile (IBSI)."""
