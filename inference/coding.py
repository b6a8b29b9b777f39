"""Every coded concept that our results use, once, with the meaning its dictionary gives it.

Sources: PS3.16 Annex D (DCM), SNOMED CT concepts of the DICOM subset (PS3.16 8.1.1), UCUM (PS3.16 CID 7181).
"""

from pydicom.sr.coding import Code

ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
"""Algorithm family (PS3.16 CID 7162)."""
