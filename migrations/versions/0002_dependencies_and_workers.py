"""Let jobs depend on each other, and workers say that they are there

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
OTHER_JOBS = ("base_job_id", "retry_of", "resumes_job_id")


def upgrade() -> None:
    op.create_table(
        "workers",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("hostname", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("queues", JSON, nullable=False),
        sa.Column("device", JSON, nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_workers")),
    )
    op.create_index(op.f("ix_workers_seen_at"), "workers", ["seen_at"])
    op.create_table(
        "job_dependencies",
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("depends_on", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(["depends_on"], ["jobs.id"], name=op.f("fk_job_dependencies_depends_on_jobs")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_dependencies_job_id_jobs")),
        sa.PrimaryKeyConstraint("job_id", "depends_on", name=op.f("pk_job_dependencies")),
    )
    op.create_index(op.f("ix_job_dependencies_depends_on"), "job_dependencies", ["depends_on"])
    # Rows that are there were last stored when they were made.
    op.add_column("artifacts", sa.Column("touched_at", sa.Double(), server_default="0", nullable=False))
    op.execute("UPDATE artifacts SET touched_at = created_at")
    op.create_index(op.f("ix_artifacts_touched_at"), "artifacts", ["touched_at"])
    op.add_column("checkpoints", sa.Column("score", sa.Double(), nullable=True))
    for column in OTHER_JOBS:
        # Said in SQL: Alembic cannot add a column together with its key on SQLite, which has no other way.
        op.execute(
            f"ALTER TABLE jobs ADD COLUMN {column} VARCHAR(40) CONSTRAINT fk_jobs_{column}_jobs REFERENCES jobs (id)"
        )
    op.add_column("jobs", sa.Column("waiting_for", sa.Integer(), server_default="0", nullable=False))
    op.add_column("jobs", sa.Column("max_runtime_s", sa.Double(), nullable=True))
    op.create_index(op.f("ix_jobs_base_job_id"), "jobs", ["base_job_id"])
    op.create_index(
        "ix_jobs_queued",
        "jobs",
        ["priority", "id"],
        sqlite_where=sa.text("state = 'queued'"),
        postgresql_where=sa.text("state = 'queued'"),
    )


def downgrade() -> None:
    op.drop_index("ix_jobs_queued", table_name="jobs")
    op.drop_index(op.f("ix_jobs_base_job_id"), table_name="jobs")
    for column in ("max_runtime_s", "waiting_for", *reversed(OTHER_JOBS)):
        op.drop_column("jobs", column)
    op.drop_column("checkpoints", "score")
    op.drop_index(op.f("ix_artifacts_touched_at"), table_name="artifacts")
    op.drop_column("artifacts", "touched_at")
    op.drop_table("job_dependencies")
    op.drop_table("workers")
