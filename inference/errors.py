"""Why an image is not analysed: one family of errors, whose text is the reason a person reads.

InferenceError
├── InputRefused      the series cannot be placed or read, or is not what is wanted: for good
│   └── DecodeError   a pixel data element that no library here can decode
├── ModelError        the model itself failed: may be tried again
│   └── OutOfMemory   memory ran out where less would be another result: in another process
├── ModelRefused      the model may not or cannot run here, whatever the image: for good
└── EncodingError     a result object did not pass its own checks: never leaves the node
"""


class InferenceError(Exception):
    """Base of all errors of this package."""


class InputRefused(InferenceError):  # noqa: N818  (a refusal with its reason, the field's word)
    """The input is refused; `str(error)` is the reason, without patient identifiers."""


class DecodeError(InputRefused):
    """Pixel data cannot be decoded."""


class ModelError(InferenceError):
    """A model failed while it ran."""


class OutOfMemory(ModelError):  # noqa: N818  (a state of the machine)
    """Memory ran out, and nothing less may be tried; `str(error)` says what a person can do."""


class ModelRefused(InferenceError):  # noqa: N818  (a refusal with its reason)
    """The model is not run: its files changed, are not allowed, or need what is not here."""


class EncodingError(InferenceError):
    """A result object failed its checks."""
