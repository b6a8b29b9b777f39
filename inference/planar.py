"""Instances to planar images: radiographs, ultrasound frames, photographs, each with its source."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset

from inference.errors import InputRefused
from inference.findings import PlanarImage
from inference.frames import Source
from inference.series import SetAside


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One planar image and the instance (and frame) that it comes from."""

    image: PlanarImage
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """The planar images of a series, in order of instance number and frame."""

    views: tuple[View, ...]
    set_aside: tuple[SetAside, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def headers(self) -> tuple[Dataset, ...]:
        """The headers of the instances in order, each once."""
        return tuple({id(view.source.dataset): view.source.dataset for view in self.views}.values())


def read(datasets: Sequence[Dataset]) -> Views:
    """The planar images of a series; raises InputRefused with the reason."""
    raise InputRefused("planar images are not read yet")
