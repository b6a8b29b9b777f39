"""12-bit JPEG Extended (1.2.840.10008.1.2.4.51) decoded by GDCM, as a plug-in of pydicom's decoder.

pydicom's own GDCM plug-in declines 12 bits because GDCM first tries its 8-bit codec and says so on
stderr; the 12-bit codec then decodes, to the values of DCMTK's (tested).
"""

import gdcm
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder
from pydicom.uid import JPEGExtended12Bit

DECODER_DEPENDENCIES = {JPEGExtended12Bit: ("gdcm>=3.0.10",)}
NAME = "gdcm 12-bit"


def is_available(uid: str) -> bool:
    """Whether this plug-in decodes a transfer syntax."""
    return uid in DECODER_DEPENDENCIES


def decode_frame(src: bytes, runner: DecodeRunner) -> bytes:
    """One encoded frame to its pixels, 16 bits each; raises RuntimeError when GDCM cannot."""
    if runner.bits_stored != 12 or runner.samples_per_pixel != 1:
        raise RuntimeError("only 12-bit greyscale")
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((runner.columns, runner.rows, 1))
    image.SetDataElement(_element(src))
    image.SetPhotometricInterpretation(
        gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2)
    )
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, runner.bits_stored, runner.bits_stored - 1, 0))
    pixels: bytes = image.GetBuffer().encode("utf-8", "surrogateescape")
    if len(pixels) != runner.rows * runner.columns * 2:
        raise RuntimeError(f"{len(pixels)} bytes decoded")
    return pixels


def _element(src: bytes) -> gdcm.DataElement:
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(src)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    return element


def install() -> None:
    """Offer the plug-in to pydicom; a second call changes nothing."""
    decoder = get_decoder(JPEGExtended12Bit)
    if NAME not in decoder.available_plugins:
        decoder.add_plugin(NAME, (__name__, "decode_frame"))
