"""Where the fleet's server keeps what must not be lost: SQLite by default, PostgreSQL by URL.

SQL lives beside what it serves, in terms of SQLAlchemy Core; here are the connections and the
migrations. To add tables write one more file in ``migrations/versions``.
"""
