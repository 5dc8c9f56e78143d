"""Number the datasets of one name, and let them have tags

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
_SAME_NAME = "FROM datasets AS other WHERE other.project = datasets.project AND other.name = datasets.name"


def upgrade() -> None:
    op.create_table(
        "dataset_names",
        sa.Column("project", sa.String(length=64), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("last_version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("project", "name", name=op.f("pk_dataset_names")),
    )
    op.add_column("datasets", sa.Column("version", sa.Integer(), server_default="1", nullable=False))
    op.add_column("datasets", sa.Column("previous_id", sa.String(length=40), nullable=True))
    op.add_column("datasets", sa.Column("tags", JSON, server_default="[]", nullable=False))
    # What is there is numbered in the order in which it came.
    op.execute(f"UPDATE datasets SET version = (SELECT count(*) {_SAME_NAME} AND other.id <= datasets.id)")  # noqa: S608
    op.execute(f"UPDATE datasets SET previous_id = (SELECT max(other.id) {_SAME_NAME} AND other.id < datasets.id)")  # noqa: S608
    op.execute("INSERT INTO dataset_names SELECT project, name, max(version) FROM datasets GROUP BY project, name")
    op.create_index(op.f("ix_datasets_project_name_version"), "datasets", ["project", "name", "version"], unique=True)


def downgrade() -> None:
    op.drop_index(op.f("ix_datasets_project_name_version"), table_name="datasets")
    for column in ("tags", "previous_id", "version"):
        op.drop_column("datasets", column)
    op.drop_table("dataset_names")
