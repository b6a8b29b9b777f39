"""A job that is done says where its model ran and what it took."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("device", sa.Text()))
        jobs.add_column(sa.Column("arithmetic", sa.Text()))
        jobs.add_column(sa.Column("peak_bytes", sa.BigInteger()))
        jobs.add_column(sa.Column("model_seconds", sa.Float()))
