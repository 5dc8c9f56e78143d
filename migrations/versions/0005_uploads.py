"""Let files come in parts

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("project", sa.String(length=64), nullable=False),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("part_bytes", sa.BigInteger(), nullable=False),
        sa.Column("source_sha256", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["source_sha256"], ["artifacts.sha256"], name=op.f("fk_uploads_source_sha256_artifacts")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_uploads")),
    )
    op.create_index(op.f("ix_uploads_project_id"), "uploads", ["project", "id"])
    op.create_index(op.f("ix_uploads_source_sha256"), "uploads", ["source_sha256"])
    op.create_index(op.f("ix_uploads_expires_at"), "uploads", ["expires_at"])
    # Whether a project has a file already is asked by its digest, and so is whether anything points at it.
    op.create_index(op.f("ix_datasets_source_sha256"), "datasets", ["source_sha256"])


def downgrade() -> None:
    op.drop_index(op.f("ix_datasets_source_sha256"), table_name="datasets")
    op.drop_table("uploads")
