"""The same source, model and configuration give the same UIDs, on any node, at any time.

Every UID is 2.25 followed by a name-based UUID (version 5) as a decimal integer (PS3.5 B.2), so no
registered root is needed and a repeated run sends the same SOP instance again, no duplicate.
"""

from uuid import UUID, uuid5

_NAMESPACE = UUID("4a9d64b6-6d5c-5a0e-9a3f-6b0d7c1c8f52")


def derived(*parts: str) -> str:
    """The UID of these parts in this order: ("a", "bc") differs from ("ab", "c")."""
    name = "".join(f"{len(part)}:{part}" for part in parts)
    return f"2.25.{uuid5(_NAMESPACE, name).int}"


IMPLEMENTATION_CLASS_UID = derived("implementation", "hounsfield")
IMPLEMENTATION_VERSION_NAME = "HOUNSFIELD"


def series_uid(
    *, source_series_uid: str, model: str, version: str, configuration: str, kind: str
) -> str:
    """Series Instance UID of a result kind of one model on one series."""
    return derived("series", source_series_uid, model, version, configuration, kind)


def instance_uid(
    *,
    series_uid: str,
    fingerprint: str,
    described: str,
    generation: int,
    predecessor: str,
    computed: str,
) -> str:
    """SOP Instance UID of the result from one set of instances, and of its place in a line of them.

    `described` is its series description; `predecessor` the SOP Instance UID of the report that it
    replaces, "" for the first; `computed` how a network came to it, "" without one. All are written
    into the object: another value is another object. The series is the same, in which a result may
    take the place of one that was computed otherwise.
    """
    place = (str(generation), predecessor, *((computed,) if computed else ()))
    return derived("instance", series_uid, fingerprint, described, *place)


def tracking_uid(*, series_uid: str, label: str) -> str:
    """Tracking UID of a segment; the same when late instances make the same model run again."""
    return derived("tracking", series_uid, label)


def device_uid(*, node_name: str, serial: str) -> str:
    """Device UID of the node that made a result (device observer, TID 1004)."""
    return derived("device", node_name, serial)


def model_uid(*, model: str, version: str, configuration: str) -> str:
    """Device UID of the model as processing equipment."""
    return derived("model", model, version, configuration)
