"""The first schema: studies, series, instances, jobs, results, deliveries, vectors."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table('quarantine',
    sa.Column('id', ID, nullable=False),
    sa.Column('key', sa.Text(), nullable=False),
    sa.Column('size', sa.BigInteger(), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('received_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('calling_ae_title', sa.Text(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_quarantine')),
    sa.UniqueConstraint('key', name=op.f('uq_quarantine_key'))
    )
    op.create_table('studies',
    sa.Column('id', ID, nullable=False),
    sa.Column('study_instance_uid', sa.Text(), nullable=False),
    sa.Column('first_received_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('last_received_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('routed', sa.Boolean(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_studies')),
    sa.UniqueConstraint('study_instance_uid', name=op.f('uq_studies_study_instance_uid'))
    )
    op.create_index('ix_studies_routed_last_received_at', 'studies', ['routed', 'last_received_at'], unique=False)
    op.create_table('series',
    sa.Column('id', ID, nullable=False),
    sa.Column('study_id', ID, nullable=False),
    sa.Column('series_instance_uid', sa.Text(), nullable=False),
    sa.Column('modality', sa.Text(), nullable=False),
    sa.Column('patient', sa.Text(), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('reason', sa.Text(), nullable=True),
    sa.Column('instances', sa.Integer(), nullable=False),
    sa.Column('conflicts', sa.Integer(), nullable=False),
    sa.Column('size', sa.BigInteger(), nullable=False),
    sa.Column('first_received_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('last_received_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('attributes', sa.Text(), nullable=False),
    sa.Column('fingerprint', sa.String(length=64), nullable=True),
    sa.ForeignKeyConstraint(['study_id'], ['studies.id'], name=op.f('fk_series_study_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_series')),
    sa.UniqueConstraint('study_id', 'series_instance_uid', name=op.f('uq_series_study_id_series_instance_uid'))
    )
    op.create_index('ix_series_series_instance_uid', 'series', ['series_instance_uid'], unique=False)
    op.create_index('ix_series_state_last_received_at', 'series', ['state', 'last_received_at'], unique=False)
    op.create_table('dispositions',
    sa.Column('id', ID, nullable=False),
    sa.Column('series_id', ID, nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('route', sa.Text(), nullable=True),
    sa.Column('model', sa.Text(), nullable=True),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['series_id'], ['series.id'], name=op.f('fk_dispositions_series_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_dispositions'))
    )
    op.create_index('ix_dispositions_series_id', 'dispositions', ['series_id'], unique=False)
    op.create_table('instances',
    sa.Column('id', ID, nullable=False),
    sa.Column('series_id', ID, nullable=False),
    sa.Column('sop_instance_uid', sa.Text(), nullable=False),
    sa.Column('sop_class_uid', sa.Text(), nullable=False),
    sa.Column('transfer_syntax_uid', sa.Text(), nullable=False),
    sa.Column('digest', sa.String(length=64), nullable=False),
    sa.Column('key', sa.Text(), nullable=False),
    sa.Column('size', sa.BigInteger(), nullable=False),
    sa.Column('received_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('calling_ae_title', sa.Text(), nullable=False),
    sa.Column('header', sa.Text(), nullable=False),
    sa.Column('conflict', sa.Boolean(), nullable=False),
    sa.Column('forgotten_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('purged', sa.Boolean(), nullable=False),
    sa.ForeignKeyConstraint(['series_id'], ['series.id'], name=op.f('fk_instances_series_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_instances')),
    sa.UniqueConstraint('sop_instance_uid', 'digest', name=op.f('uq_instances_sop_instance_uid_digest'))
    )
    op.create_index('ix_instances_series_id', 'instances', ['series_id'], unique=False)
    op.create_index('ix_instances_unpurged', 'instances', ['key'], unique=False, sqlite_where=sa.text('forgotten_at IS NOT NULL AND NOT purged'), postgresql_where=sa.text('forgotten_at IS NOT NULL AND NOT purged'))
    op.create_index('uq_instances_sop_instance_uid', 'instances', ['sop_instance_uid'], unique=True, sqlite_where=sa.text('NOT conflict'), postgresql_where=sa.text('NOT conflict'))
    op.create_table('jobs',
    sa.Column('id', ID, nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('scope', sa.Text(), nullable=False),
    sa.Column('series_id', ID, nullable=False),
    sa.Column('fingerprint', sa.String(length=64), nullable=False),
    sa.Column('model', sa.Text(), nullable=False),
    sa.Column('model_version', sa.Text(), nullable=False),
    sa.Column('configuration', sa.Text(), nullable=False),
    sa.Column('routes', sa.Text(), nullable=False),
    sa.Column('destinations', sa.Text(), nullable=False),
    sa.Column('priority', sa.SmallInteger(), nullable=False),
    sa.Column('request_reason', sa.Text(), nullable=False),
    sa.Column('generation', sa.Integer(), nullable=False),
    sa.Column('supersedes', ID, nullable=True),
    sa.Column('attempts', sa.Integer(), nullable=False),
    sa.Column('token', sa.Integer(), nullable=False),
    sa.Column('worker', sa.Text(), nullable=True),
    sa.Column('due_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('lease_until', sa.DateTime(timezone=True), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('started_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('finished_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('verdict', sa.String(length=16), nullable=True),
    sa.Column('reason', sa.Text(), nullable=True),
    sa.Column('takers', sa.Text(), nullable=True),
    sa.ForeignKeyConstraint(['series_id'], ['series.id'], name=op.f('fk_jobs_series_id')),
    sa.ForeignKeyConstraint(['supersedes'], ['jobs.id'], name=op.f('fk_jobs_supersedes')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_jobs')),
    sa.UniqueConstraint('fingerprint', 'model', 'model_version', 'configuration', name=op.f('uq_jobs_fingerprint_model_model_version_configuration'))
    )
    op.create_index('ix_jobs_scope_model', 'jobs', ['scope', 'model'], unique=False)
    op.create_index('ix_jobs_series_id', 'jobs', ['series_id'], unique=False)
    op.create_index('ix_jobs_state_priority_due_at', 'jobs', ['state', 'priority', 'due_at'], unique=False)
    op.create_table('vectors',
    sa.Column('id', ID, nullable=False),
    sa.Column('series_id', ID, nullable=False),
    sa.Column('kind', sa.Text(), nullable=False),
    sa.Column('version', sa.Text(), nullable=False),
    sa.Column('dimensions', sa.Integer(), nullable=False),
    sa.Column('data', sa.LargeBinary(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['series_id'], ['series.id'], name=op.f('fk_vectors_series_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_vectors')),
    sa.UniqueConstraint('series_id', 'kind', 'version', name=op.f('uq_vectors_series_id_kind_version'))
    )
    op.create_index('ix_vectors_kind_version', 'vectors', ['kind', 'version'], unique=False)
    op.create_table('results',
    sa.Column('id', ID, nullable=False),
    sa.Column('job_id', ID, nullable=False),
    sa.Column('kind', sa.Text(), nullable=False),
    sa.Column('sop_class_uid', sa.Text(), nullable=False),
    sa.Column('sop_instance_uid', sa.Text(), nullable=False),
    sa.Column('series_instance_uid', sa.Text(), nullable=False),
    sa.Column('digest', sa.String(length=64), nullable=False),
    sa.Column('key', sa.Text(), nullable=False),
    sa.Column('size', sa.BigInteger(), nullable=False),
    sa.Column('place', sa.Integer(), nullable=False),
    sa.Column('current', sa.Boolean(), nullable=False),
    sa.ForeignKeyConstraint(['job_id'], ['jobs.id'], name=op.f('fk_results_job_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_results')),
    sa.UniqueConstraint('sop_instance_uid', name=op.f('uq_results_sop_instance_uid'))
    )
    op.create_index('ix_results_job_id', 'results', ['job_id'], unique=False)
    op.create_index('ix_results_series_instance_uid', 'results', ['series_instance_uid'], unique=False)
    op.create_table('deliveries',
    sa.Column('id', ID, nullable=False),
    sa.Column('job_id', ID, nullable=False),
    sa.Column('result_id', ID, nullable=False),
    sa.Column('destination', sa.Text(), nullable=False),
    sa.Column('place', sa.Integer(), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('attempts', sa.Integer(), nullable=False),
    sa.Column('token', sa.Integer(), nullable=False),
    sa.Column('due_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('lease_until', sa.DateTime(timezone=True), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('finished_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('last_error', sa.Text(), nullable=True),
    sa.ForeignKeyConstraint(['job_id'], ['jobs.id'], name=op.f('fk_deliveries_job_id')),
    sa.ForeignKeyConstraint(['result_id'], ['results.id'], name=op.f('fk_deliveries_result_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_deliveries')),
    sa.UniqueConstraint('result_id', 'destination', name=op.f('uq_deliveries_result_id_destination'))
    )
    op.create_index('ix_deliveries_destination_state_due_at', 'deliveries', ['destination', 'state', 'due_at'], unique=False)
    op.create_index('ix_deliveries_job_id', 'deliveries', ['job_id'], unique=False)
