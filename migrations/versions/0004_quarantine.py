"""Let a dataset keep the rows that were set aside

Revision ID: 0004
Revises: 0003
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Said in SQL: Alembic cannot add a column together with its key on SQLite, which has no other way.
    op.execute(
        "ALTER TABLE datasets ADD COLUMN quarantine_sha256 VARCHAR(64) "
        "CONSTRAINT fk_datasets_quarantine_sha256_artifacts REFERENCES artifacts (sha256)"
    )


def downgrade() -> None:
    op.drop_column("datasets", "quarantine_sha256")
