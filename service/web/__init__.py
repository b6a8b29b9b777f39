"""The web port: health, readiness, metrics, a status page; nothing of it identifies a patient."""
