"""Every coded concept that our results use, once, with the meaning its dictionary gives it.

Sources: PS3.16 Annex D (DCM), SNOMED CT concepts of the DICOM subset (PS3.16 8.1.1), UCUM
(PS3.16 CID 7181).
"""

from pydicom.sr.coding import Code

ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
"""Algorithm family (PS3.16 CID 7162)."""

OWN_SCHEME = "99HOUNSFIELD"
"""Coding scheme of concepts that no public dictionary has (PS3.16 section 8.2: "99" prefix)."""

LOW_ATTENUATION_AREA_950 = Code("LAA950", OWN_SCHEME, "Low attenuation area below -950 HU")
"""Ours: share of lung voxels below -950 HU; DICOM's dictionaries have none."""

ATTENUATION_PERCENTILE_15 = Code("PERC15", OWN_SCHEME, "15th percentile of attenuation")
"""Ours: CID 7468 has only the 10th and 90th percentile (IBSI)."""

PROCESSING_EQUIPMENT = Code("109102", "DCM", "Processing Equipment")
"""Purpose of reference of a model as contributing equipment (PS3.16 CID 7005)."""

ACQUISITION_EQUIPMENT = Code("109101", "DCM", "Acquisition Equipment")
"""Purpose of reference of the scanner (PS3.16 CID 7005)."""

MEASUREMENT_REPORT = Code("126000", "DCM", "Imaging Measurement Report")
"""Title of a report with measurements (PS3.16 CID 7021); OHIF draws findings under no other."""

TEXT_REPORT = Code("18748-4", "LN", "Diagnostic Imaging Report")
"""Title of a report without any (PS3.16 CID 7000): shown as text; under 126000 OHIF fails on it."""

MEASUREMENT_GROUP = Code("125007", "DCM", "Measurement Group")
TRACKING_UNIQUE_IDENTIFIER = Code("112040", "DCM", "Tracking Unique Identifier")
IMAGING_MEASUREMENTS = Code("126010", "DCM", "Imaging Measurements")
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
COMMENT = Code("121106", "DCM", "Comment")
PROCEDURE_REPORTED = Code("121058", "DCM", "Procedure reported")
ENGLISH = Code("en-US", "RFC5646", "English (United States)")
ANATOMICAL_STRUCTURE = Code("91723000", "SCT", "Anatomical Structure")
DEVICE = Code("121007", "DCM", "Device")
LONG_AXIS = Code("103339001", "SCT", "Long axis")
PATH = Code("121055", "DCM", "Path")
"""Purpose of the coordinates along which a length was measured (PS3.16 TID 1400)."""

REPRESENTATIVE_POINT = Code("128140", "DCM", "Representative point")
SOURCE_SERIES_FOR_SEGMENTATION = Code("121232", "DCM", "Source series for segmentation")
MILLIMETRE = Code("mm", "UCUM", "mm")

_PROCEDURES = {
    "CT": Code("25045-6", "LN", "CT unspecified body region"),
    "MR": Code("25056-3", "LN", "MRI unspecified body region"),
    "PT": Code("44136-0", "LN", "PET unspecified body region"),
    "NM": Code("49118-3", "LN", "NM unspecified body region"),
    "CR": Code("43468-8", "LN", "XR unspecified body region"),
    "DX": Code("43468-8", "LN", "XR unspecified body region"),
}
_ANY_PROCEDURE = Code("363679005", "SCT", "Imaging procedure")


def procedure(modality: str) -> Code:
    """The imaging procedure of a modality (PS3.16 CID 100), or "Imaging procedure"."""
    return _PROCEDURES.get(modality, _ANY_PROCEDURE)


LUNGS_VOLUME = Code("LUNGSVOL", "99HOUNSFIELD", "Volume of both lungs")
LUNGS_LOW_ATTENUATION_AREA_950 = Code(
    "LUNGSLAA950", "99HOUNSFIELD", "Low attenuation area below -950 HU of both lungs"
)
LUNGS_ATTENUATION_PERCENTILE_15 = Code(
    "LUNGSPERC15", "99HOUNSFIELD", "15th percentile of attenuation of both lungs"
)
"""Ours: numbers of the whole study, which belong to no single segment."""

WIDTH = Code("103355008", "SCT", "Width")
HEIGHT = Code("121207", "DCM", "Height")
DEPTH = Code("131197000", "SCT", "Depth")
"""Of a box (PS3.16 CID 7470): along the rows of its image, along the columns, across the images."""

AREA = Code("42798000", "SCT", "Area")
SQUARE_MILLIMETRE = Code("mm2", "UCUM", "mm2")
PERCENT = Code("%", "UCUM", "Percent")

CERTAINTY_OF_FINDING = Code("111012", "DCM", "Certainty of Finding")
"""How sure a device is of what it found, 0 to 100 % (PS3.16 CID 6048)."""

BOUNDED_BY = Code("75958009", "SCT", "Bounded by")
"""Geometric purpose of a region that is a box around a finding (PS3.16 CID 219)."""

CENTRE = Code("111010", "DCM", "Center")
"""Of a finding (PS3.16 CID 219): where a key point exactly is, between the slices."""

ABOVE = Code("371886008", "SCT", "+, range of upper measurement uncertainty")
BELOW = Code("371885007", "SCT", "-, range of lower measurement uncertainty")
"""How far an interval reaches from the value (PS3.16 CID 225)."""
