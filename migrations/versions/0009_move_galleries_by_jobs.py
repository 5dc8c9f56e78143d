"""Move galleries by jobs, and choose their thresholds when they are asked for

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("galleries", sa.Column("revision", sa.Integer(), server_default="0", nullable=False))
    op.add_column("galleries", sa.Column("threshold_at", sa.Integer(), server_default="0", nullable=False))
    # Said in SQL: Alembic cannot add a column together with its key on SQLite, which has no other way.
    op.execute(
        "ALTER TABLE galleries ADD COLUMN move_job_id VARCHAR(40) "
        "CONSTRAINT fk_galleries_move_job_id_jobs REFERENCES jobs (id)"
    )
    op.create_table(
        "sample_embeddings",
        sa.Column("sample_id", sa.String(length=40), nullable=False),
        sa.Column("version_id", sa.String(length=40), nullable=False),
        sa.Column("embedding", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["sample_id"], ["samples.id"], name=op.f("fk_sample_embeddings_sample_id_samples")),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name=op.f("fk_sample_embeddings_version_id_versions")),
        sa.PrimaryKeyConstraint("sample_id", "version_id", name=op.f("pk_sample_embeddings")),
    )
    op.create_index(op.f("ix_sample_embeddings_version_id"), "sample_embeddings", ["version_id"])


def downgrade() -> None:
    op.drop_table("sample_embeddings")
    for column in ("move_job_id", "threshold_at", "revision"):
        op.drop_column("galleries", column)
