"""Findings and their source become DICOM objects, the same bytes for the same input.

A result kind is a module here that defines a literal `ORDER` (lower leaves first) and
`encode(source, findings, *, provenance, ...)` for a stack and `encode_views` for planar images.
Nothing here reads a clock: dates and times are the source's, UIDs derive from source, model,
configuration and instances.
"""

from dataclasses import dataclass

from pydicom.sr.coding import Code

from inference.coding import ARTIFICIAL_INTELLIGENCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """One SOP instance in the study of the source."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Which model made a result, where, from which instances, and whether it is for diagnosis.

    `configuration` and `fingerprint` are digests (of the model's settings; of the set of instances
    analysed): equal ones give equal UIDs. `generation` counts the results of one model on one
    series as instances arrive late; `predecessor` is the report that this generation replaces.
    `computed`: how the findings were, known when the model has answered; other words, other
    SOP Instance UIDs.
    """

    model_name: str  # the configured kind: "lung_ct"
    model_version: str
    configuration: str  # digest of the model's settings
    fingerprint: str  # digest of the instances analysed
    generation: int = 1  # 1, 2, ...: Instance Number of the results
    predecessor: Reference | None = None
    node_name: str = "HOUNSFIELD"  # the application entity title
    device_serial: str = "0"
    software_version: str = "0.1.0"
    not_for_diagnosis: bool = True
    algorithm_family: Code = ARTIFICIAL_INTELLIGENCE  # CID 7162
    model_digest: str | None = None  # SHA-256 of the model's files, in hexadecimal
    model_licence: str | None = None
    computed: str | None = None  # "bfloat16 on cpu"

    @property
    def described(self) -> str:
        """The series description: model, version, "not for diagnosis" unless it may be used so."""
        return self.described_as("")

    def described_as(self, part: str) -> str:
        """The same of one of several objects, which `part` tells from the others: "(1 of 2)"."""
        suffix = f" {part}" if part else ""
        suffix += " - not for diagnosis" if self.not_for_diagnosis else ""
        name = f"AI: {self.model_name} {self.model_version}"
        return name[: LONG_STRING - len(suffix)] + suffix

    @property
    def parameters(self) -> tuple[str, ...]:
        """What else identifies the model, in words: Algorithm Parameters (PS3.3 10.16)."""
        digest, licence = self.model_digest, self.model_licence
        return (
            *((f"weights SHA-256 {digest}",) if digest else ()),
            *((f"licence {licence}",) if licence else ()),
            *((f"computed in {self.computed}",) if self.computed else ()),
        )


LONG_STRING = 64
"""Characters of a value of VR LO (PS3.5 Table 6.2-1)."""
